"""What `predict` takes and writes: stdin, lists of paths, links; the CSV as it was, JSON lines, and the table of a terminal."""

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resfit.cli import main
from resfit.columns import align, cut, places
from resfit.data.tree import list_tree
from resfit.evaluation.answers import predict


@pytest.fixture
def photos(tmp_path, digit_arrays, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(digit_arrays[0][number]).resize((40, 50)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return folder


def run(capsys, *words):
    code = main(["predict", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


class Pipe(io.TextIOWrapper):
    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data))


def test_the_csv_is_what_it_was_byte_for_byte(trained, photos, capsys):
    answers = predict([trained.folder], ["photos"], "cpu")
    wanted = "ID,Labels\n" + "".join(f"photos/{n}.png,{k}\n" for n, k in enumerate(answers.probs.argmax(1)))
    assert run(capsys, trained.folder, "photos")[:2] == (0, wanted)
    for name in ("out.csv", "out.txt", "out"):
        assert run(capsys, trained.folder, "photos", "-o", name)[:2] == (0, "")
        assert Path(name).read_bytes() == wanted.encode()
    assert run(capsys, trained.folder, "photos", "-o", "out.jsonl", "--format", "csv")[:2] == (0, "")
    assert Path("out.jsonl").read_bytes() == wanted.encode()


def test_json_lines_hold_what_the_network_says(trained, photos, capsys):
    answers = predict([trained.folder], ["photos"], "cpu")
    assert run(capsys, trained.folder, "photos", "-o", "out.jsonl")[:2] == (0, "")
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"photos/{n}.png" for n in range(4)]
    for row, probs in zip(rows, answers.probs, strict=True):
        np.testing.assert_allclose([row["probabilities"][name] for name in answers.class_names], probs, atol=1e-6)
        assert list(row["probabilities"].values()) == sorted(row["probabilities"].values(), reverse=True)
        assert (row["index"], row["label"]) == (probs.argmax(), answers.class_names[probs.argmax()])
        assert row["score"] == max(row["probabilities"].values())
    _, out, _ = run(capsys, trained.folder, "photos", "--format", "jsonl", "--top", 2)
    for full, line in zip(rows, out.splitlines(), strict=True):
        assert json.loads(line)["probabilities"] == dict(list(full["probabilities"].items())[:2])


def test_an_image_on_stdin(trained, photos, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", Pipe((photos / "2.png").read_bytes()))
    code, out, _ = run(capsys, trained.folder, "photos/1.png", "-", "photos/2.png", "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["id"] for row in rows] == ["photos/1.png", "stdin", "photos/2.png"]
    assert rows[1]["probabilities"] == rows[2]["probabilities"] != rows[0]["probabilities"]


@pytest.mark.parametrize(
    "listed", ["photos/3.png\nphotos/0.png", "photos/3.png\r\n\r\nphotos/0.png\r\n", "photos/3.png\0photos/0.png\0"]
)
def test_paths_from_a_list(trained, photos, capsys, monkeypatch, listed):
    _, wanted, _ = run(capsys, trained.folder, "photos/3.png", "photos/0.png")
    monkeypatch.setattr("sys.stdin", Pipe(listed.encode()))
    assert run(capsys, trained.folder, "--files-from", "-")[:2] == (0, wanted)
    Path("list").write_bytes(listed.encode())
    assert run(capsys, trained.folder, "--files-from", "list")[:2] == (0, wanted)


def test_names_with_newlines_come_ended_by_zero_bytes(trained, photos, capsys):
    (photos / "1.png").rename(photos / "a\nb\udcff.png")
    Path("list").write_bytes(os.fsencode("photos/a\nb\udcff.png") + b"\0")
    assert run(capsys, trained.folder, "--files-from", "list")[1].split(",")[1] == "Labels\nphotos/a\\x0ab\\xff.png"


MISTAKES = {
    "photos -": (b"", 4, "stdin: nothing came in"),
    "-": (b"no image", 4, "stdin: cannot be decoded"),
    "- -": (b"x", 2, "-: standard input is named twice"),
    "- --files-from -": (b"x", 2, "-: standard input is named twice"),
    "--files-from -": (b"\n\n", 2, "--files-from -: lists no paths"),
    "--files-from no": (b"", 4, "no: cannot be read: No such file"),
    "--files-from photos": (b"", 4, "photos: cannot be read: Is a directory"),
    "photos --files-from list -o list": (b"", 2, "list: is read here"),
    "--files-from list -o photos/0.png": (b"", 2, "photos/0.png: is read here"),
    "photos -o out.json": (b"", 2, "JSON lines have the suffix .jsonl"),
    "photos --format jsonl --json": (b"", 2, "--format: is for -o or stdout"),
    "photos --top 2": (b"", 2, "--top: is for jsonl and table, not for csv"),
    "photos --top 0 --format jsonl": (b"", 2, "--top: 0 is not 1 or more"),
    "photos --sample list -o out.jsonl": (b"", 2, "--sample: is for csv, not for jsonl"),
    "photos --format json": (b"", 2, "invalid choice: 'json'"),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_nothing_is_written(trained, photos, capsys, monkeypatch, words):
    data, code, message = MISTAKES[words]
    Path("list").write_text("photos/0.png\n")
    before = {path: path.read_bytes() for path in photos.iterdir()}
    monkeypatch.setattr("sys.stdin", Pipe(data))
    found, out, err = run(capsys, trained.folder, *words.split())
    assert (found, out, err.count("\n")) == (code, "", 1)
    assert message in err
    assert {path: path.read_bytes() for path in photos.iterdir()} == before
    assert Path("list").read_text() == "photos/0.png\n"
    assert not os.path.exists("out.json")


def test_links_never_lead_out_of_a_folder(trained, photos, capsys, tmp_path):
    outside = tmp_path / "outside"
    (outside / "more").mkdir(parents=True)
    (photos / "0.png").rename(outside / "secret.png")
    (photos / "sub").mkdir()
    (photos / "1.png").rename(photos / "sub" / "1.png")
    links = {
        "out.png": outside / "secret.png",
        "out": outside,
        "up": "..",
        "round": ".",
        "a.png": "b.png",
        "b.png": "a.png",
    }
    links |= {"sub/above": "../..", "sub/home": "..", "chain.png": "out.png", "in": "sub", "in.png": "sub/1.png"}
    for name, target in links.items():
        (photos / name).symlink_to(target)
    code, out, err = run(capsys, trained.folder, "photos")
    inside = ["2.png", "3.png", "in.png", "in/1.png", "sub/1.png"]
    assert [line.split(",")[0] for line in out.splitlines()[1:]] == [f"photos/{name}" for name in inside]
    assert code == 0
    assert [line for line in err.splitlines() if "links" in line] == [
        "resfit: photos: links not followed, since they lead out of it or in a circle: 9"
    ]
    (tmp_path / "given").symlink_to(photos)  # what is named by the user is followed
    _, out, _ = run(capsys, trained.folder, "given", "photos/out.png")
    assert [line.split(",")[0] for line in out.splitlines()[1:]] == [*(f"given/{n}" for n in inside), "photos/out.png"]
    (photos / "none.png").symlink_to("nowhere.png")
    assert "none.png: cannot be read" in run(capsys, trained.folder, "photos")[2]
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "elsewhere").symlink_to(outside)
    assert list_tree(tmp_path / "train").files() == ["elsewhere/secret.png"]  # training follows them, as before


def test_links_among_folders_do_not_multiply(tmp_path):
    for name in "abcdefghij":
        (tmp_path / "top" / name).mkdir(parents=True)
        (tmp_path / "top" / name / "1.png").write_bytes(b"1")
        for other in "abcdefghij":
            (tmp_path / "top" / name / f"to-{other}").symlink_to(f"../{other}")
    files = list_tree(tmp_path / "top", inside=True).files()
    assert len(files) == 10 + 10 * 9  # each by its own path, and by one link; to itself is a circle


def test_a_terminal_gets_a_table(trained, photos):
    long = photos / ("x" * 60) / ("日本" * 20)
    long.mkdir(parents=True)
    (photos / "3.png").rename(long / "end.png")
    main_end, end = pty.openpty()
    words = [sys.executable, "-m", "resfit", "predict", str(trained.folder), "photos"]
    with subprocess.Popen(words, stdout=end, stderr=subprocess.PIPE, env=os.environ | {"COLUMNS": "70"}) as process:
        assert process.stderr is not None
        err = process.stderr.read().decode()
        shown = os.read(main_end, 10_000).decode()
    os.close(end), os.close(main_end)
    lines = shown.replace("\r\n", "\n").splitlines()
    assert "4 images; within budget" in err
    assert lines[0].split() == ["image", "label", "score", "second", "score", "third", "score"]
    assert len(lines) == 5
    assert max(map(places, lines)) == 70
    assert len({places(line[: line.index("%")]) for line in lines[1:]}) == 1  # aligned, wide characters and all
    assert lines[4].startswith("…")
    assert "本/end.png  " in lines[4]
    answers = predict([trained.folder], ["photos"], "cpu")
    for line, probs in zip(lines[1:], answers.probs, strict=True):
        order = np.argsort(-probs)
        assert line.split()[-6:] == [word for k in order for word in (answers.class_names[k], f"{probs[k]:.1%}")]


def test_columns():
    assert [places(text) for text in ("abc", "日本", "e\u0301", "👩\u200d👩", "")] == [3, 4, 1, 4, 0]
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcdef", 4, keep_end=True) == "…def"
    assert cut("日本語", 5) == "日本…"
    assert cut("日本語", 4) == "日…"
    assert cut("日本", 4) == "日本"
    assert align([["a", "1"], ["日", "10"]], frozenset([1])) == ["a    1", "日  10"]
