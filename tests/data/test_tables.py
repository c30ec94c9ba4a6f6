"""Tables of images: CSV as people write them, metadata.csv and metadata.jsonl, and which table of a folder counts."""

import json
import os

import numpy as np
import pytest

from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_split, load_splits, open_source, split_manifest

RULE = PixelRule(8)


@pytest.fixture
def photos(make, tmp_path):
    """photos/images/CLASS-n.png, eight images of ant and bee each, and the rows that list them."""
    top = tmp_path / "photos"
    (top / "images").mkdir(parents=True)
    rows = []
    for number, name in enumerate(("ant", "bee")):
        for i in range(8):
            (top / f"images/{name}-{i}.png").write_bytes(make.encode(make.noise(100 * number + i)))
            rows.append((f"images/{name}-{i}.png", name))
    return top, rows


@pytest.fixture
def reference(make, tmp_path):
    """The same images as class folders: whatever lists them must give this fingerprint."""
    make.write_classes(tmp_path / "same", {"ant": 8, "bee": 8})
    for number, name in enumerate(("ant", "bee")):
        for i in range(8):
            (tmp_path / f"same/{name}/{i:03}.png").write_bytes(make.encode(make.noise(100 * number + i)))
    return [load_split(tmp_path / "same", split, RULE).fingerprint for split in ("train", "val", "test")]


def found(source):
    return [part.fingerprint for part in load_splits(source, ("train", "val", "test"), RULE)]


def lines(rows, delimiter=",", header=("path", "label"), end="\n"):
    return end.join(delimiter.join(row) for row in [header, *rows]) + end


FORMS = {
    "plain": lambda rows: lines(rows).encode(),
    "semicolons": lambda rows: lines(rows, ";").encode(),
    "tabs": lambda rows: lines(rows, "\t").encode(),
    "mark": lambda rows: b"\xef\xbb\xbf" + lines(rows).encode(),
    "utf-16": lambda rows: lines(rows, "\t").encode("utf-16"),
    "crlf": lambda rows: lines(rows, end="\r\n").encode(),
    "old mac": lambda rows: lines(rows, end="\r").encode(),
    "quoted": lambda rows: lines([(f'"{p}"', f'"{c}"') for p, c in rows]).encode(),
    "spaces": lambda rows: lines([(p, f" {c} ") for p, c in rows], header=(" Path", " Label ")).encode(),
    "windows": lambda rows: lines([(p.replace("/", "\\"), c) for p, c in rows]).encode(),
    "dot": lambda rows: lines([(f"./{p}", c) for p, c in rows]).encode(),
    "blank lines": lambda rows: ("\n" + lines(rows).replace("\n", "\n\n") + "\n,\n").encode(),
    "other columns": lambda rows: lines([("7", c, p) for p, c in rows], header=("id", "class", "file")).encode(),
    "pandas": lambda rows: lines(
        [(str(n), *r) for n, r in enumerate(rows)], header=("", "filename", "target")
    ).encode(),
    "no end": lambda rows: lines(rows).rstrip().encode(),
    "in the only folder": lambda rows: lines([(p.split("/")[1], c) for p, c in rows]).encode(),
    "ids": lambda rows: lines([(p.split("/")[1][:-4], c) for p, c in rows], header=("id", "label")).encode(),
    "upside down": lambda rows: lines(rows[::-1]).encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_are_one_set(photos, reference, form):
    top, rows = photos
    (top / "labels.csv").write_bytes(FORMS[form](rows))
    assert found(top / "labels.csv") == found(top) == reference
    pool = load_split(top, "trainval", RULE)
    assert pool.ids[0].startswith("images/ant-")
    assert "a CSV of labels (labels.csv: " in open_source(top).layout
    assert len(split_manifest(top)) == 16


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "labels.tsv", "any name.csv"])
def test_names_that_are_found(photos, reference, name):
    top, rows = photos
    if name.endswith("jsonl"):
        text = "\n".join(json.dumps({"file_name": p, "label": c, "text": [1]}) for p, c in rows)
    else:
        text = lines(rows, header=("file_name", "label"))
    (top / name).write_text(text)
    assert found(top) == reference
    kind = "JSON lines" if name.endswith("jsonl") else "a CSV"
    assert open_source(top).layout == f"{kind} of labels ({name}: file_name,label), 2 classes"


def test_the_column_of_splits(photos):
    top, rows = photos
    words = ["Train", "training", "TRAIN", "train", "dev", "Validation", "test", "testing"] * 2
    (top / "l.csv").write_text(
        lines([(*r, w) for r, w in zip(rows, words, strict=True)], header=("image", "class", "split"))
    )
    assert open_source(top).splits == ("train", "val", "test")
    parts = load_splits(top, ("train", "val", "test", "trainval"), RULE)
    assert [len(p) for p in parts] == [8, 4, 4, 12]
    assert parts[0].ids == tuple(f"images/{c}-{i}.png" for c in ("ant", "bee") for i in range(4))
    assert parts[0].labels.tolist() == [0] * 4 + [1] * 4
    only = [(*r, w) for r, w in zip(rows, words, strict=True) if w.lower().startswith("train")]
    (top / "l.csv").write_text(lines(only, header=("image", "class", "split")))
    assert open_source(top).splits == ("train",)


def test_a_table_a_split(make, tmp_path):
    for number, split in enumerate(("train", "valid", "test")):
        make.write_classes(tmp_path / "hf" / split, {"x": 8}, 1000 * number)  # the folder x says nothing
        rows = [(f"x/{i:03}.png", str(i % 2 * 10)) for i in range(8)]
        (tmp_path / "hf" / split / "metadata.csv").write_text(lines(rows, header=("file_name", "label")))
        (tmp_path / "named" / split).mkdir(parents=True)
        os.symlink(tmp_path / "hf" / split / "x", tmp_path / "named" / split / "x")
        rows = [(f"{split}/{p}", c) for p, c in rows]
        (tmp_path / "named" / f"{split}.csv").write_text(lines(rows))
    (tmp_path / "named/sample_submission.csv").write_text("id,label\n1,0\n")
    (tmp_path / "named/notes.csv").write_text("when,what\n1,0\n")
    for source in (tmp_path / "hf", tmp_path / "named"):
        parts = load_splits(source, ("train", "val", "test"), RULE)
        assert [len(p) for p in parts] == [8, 8, 8]
        assert parts[0].class_names == ("0", "10")
        assert parts[1].ids[0] == "valid/x/000.png"
    assert found(tmp_path / "hf") == found(tmp_path / "named")


def test_numbers_are_ordered_as_numbers(photos):
    top, rows = photos
    (top / "l.csv").write_text(lines([(p, str(i % 3 * 5)) for i, (p, _) in enumerate(rows)]))
    assert load_split(top, "train", RULE).class_names == ("0", "5", "10")
    text = "\n".join(json.dumps({"file_name": p, "label": i % 2}) for i, (p, _) in enumerate(rows))
    (top / "l.csv").rename(top / "l.txt")
    (top / "metadata.jsonl").write_text(text)
    assert load_split(top, "train", RULE).class_names == ("0", "1")


def test_class_folders_count_before_a_table_of_another_name(make, tmp_path):
    make.write_classes(tmp_path / "set", {"ant": 5, "bee": 5})
    (tmp_path / "set/answers.csv").write_text("ID,Labels\nant/000.png,bee\n")
    assert open_source(tmp_path / "set").layout == "class folders, 2 classes"
    (tmp_path / "set/metadata.csv").write_text("file_name,text\nant/000.png,an ant\n")  # captions
    assert open_source(tmp_path / "set").layout == "class folders, 2 classes"


def test_every_change_is_noticed(photos, make):
    top, rows = photos
    table = top / "labels.csv"
    table.write_text(lines(rows))
    before = open_source(top).signature
    assert open_source(top).signature == before
    image = top / rows[3][0]
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
    second = open_source(top).signature
    swapped = [*rows[:-1], (rows[-1][0], "ant")]
    table.write_text(lines(swapped))
    assert len({before, second, open_source(top).signature}) == 3
    assert np.bincount(load_split(top, "trainval", RULE).labels).sum() == 14
    assert load_split(top, "trainval", RULE).fingerprint != ""
    (top / "unlisted.png").write_bytes(b"no image, and never looked at")
    assert len(split_manifest(top)) == 16


def test_commas_and_newlines_in_names(photos, make):
    top, rows = photos
    name = 'images/a, "b"\nc.png'
    (top / name).write_bytes(make.encode(make.noise(77)))
    quoted = name.replace('"', '""')
    (top / "labels.csv").write_text(lines([*rows, (f'"{quoted}"', "ant")]))
    assert name in {i for i, _, _ in split_manifest(top)}


def test_data_info_and_train_say_the_layout(photos, tmp_path, capsys):
    top, rows = photos
    (top / "labels.csv").write_text(lines(rows))
    assert main(["data", "info", str(top)]) == 0
    assert capsys.readouterr().out.startswith(
        f"{top}: a CSV of labels (labels.csv: path,label), 2 classes; brings all\n"
    )
    words = [
        "train",
        "resnet:widths=8,16,32:blocks_per_stage=1,1,1",
        "--data",
        str(top),
        "--out",
        str(tmp_path / "run"),
    ]
    assert main([*words, "--set", "train.epochs=1", "--set", "schedule.warmup_epochs=0", "--device", "cpu"]) == 0
    assert capsys.readouterr().err.startswith(f"{top}: a CSV of labels (labels.csv: path,label), 2 classes\n")
    assert "images/ant-0.png,ant," in (tmp_path / "run/split.csv").read_text()
