"""Groups of images: found in ids, whole on one side of every split, and the same in all that opens a run's images again."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resfit.cli import main
from resfit.data.groups import find_groups, hold_out_groups, number_groups, shared_groups
from resfit.data.images import PixelRule
from resfit.data.sources import load_split, split_manifest
from resfit.data.splits import hold_out
from resfit.errors import UsageError
from resfit.estimator import Classifier

BY = r"(w\d+)_"
RULE = PixelRule(8)


@pytest.fixture(scope="module")
def written(tmp_path_factory, digit_arrays):
    """300 digits as CLASS/wNN_i.png, 25 writers of 12 images; two files carry no writer."""
    top = tmp_path_factory.mktemp("groups") / "pool"
    for i, (image, label) in enumerate(zip(*digit_arrays, strict=True)):
        (top / f"d{label}").mkdir(parents=True, exist_ok=True)
        name = f"w{i // 12:02}_{i}.png" if i < 298 else f"loose{i}.png"
        Image.fromarray(image).save(top / f"d{label}" / name)
    return top


def writer(name: str) -> str:
    found = re.search(BY, name)
    return found.group(1) if found else name


def test_what_a_group_is(one_line):
    ids = ["a/p1_x.png", "b/p2_y.png", "b/zz.png", "a/p1_z.png"]
    assert find_groups(ids, r"(p\d)_(?P<kind>\w)", "s") == ["x", "y", None, "z"]  # a name before a number
    assert find_groups(ids, r"(p\d)", "s") == ["p1", "p2", None, "p1"]
    assert find_groups(ids, r"p\d", "s") == ["p1", "p2", None, "p1"]
    assert find_groups(ids, r"b/(p\d)?", "s") == [None, "p2", None, None]  # a group that took no part names nothing
    assert number_groups(["x", None, "x", None, "2"]).tolist() == [0, 1, 0, 2, 3]
    assert shared_groups({"train": ["a", "b", None], "val": ["b", None], "test": ["b", "a"]}) == {
        "a": ["train", "test"],
        "b": ["train", "val", "test"],
    }
    assert "'q' matches no id, such as 'a/p1_x.png'" in one_line(find_groups, ids, "q", "s")
    assert "no ids" in one_line(find_groups, None, "q", "s")
    with pytest.raises(UsageError, match="no regular expression"):
        find_groups(ids, "(", "s")


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=12, max_size=60),
    classes=st.integers(1, 4),
    seed=st.integers(0, 99),
    share=st.sampled_from([0.1, 0.2]),
)
def test_whole_groups_are_held_out_by_content(sizes, classes, seed, share):
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    keys = random.integers(0, 2**63, len(groups)).astype(np.uint64)
    labels = random.integers(0, classes, len(groups))
    labels[np.searchsorted(groups, np.arange(3 * classes))] = np.arange(3 * classes) % classes  # each in three groups
    names = list("abcd")[:classes]
    held = hold_out_groups(keys, labels, groups, names, share, "x")
    assert not set(groups[held]) & set(groups[~held])
    counts, totals = np.bincount(labels[held], minlength=classes), np.bincount(labels, minlength=classes)
    assert (counts > 0).all()
    assert (counts < totals).all()
    assert (np.abs(counts - totals * share) <= 10).all()  # the largest group has nine
    order = random.permutation(len(groups))
    numbered = random.permutation(len(sizes))  # neither names nor order count
    again = hold_out_groups(keys[order], labels[order], numbered[groups][order], names, share, "x")
    assert (again == held[order]).all()


@given(st.lists(st.integers(0, 500), min_size=10, max_size=80), st.sampled_from([0.1, 0.25]))
def test_groups_of_one_image_are_no_groups(keys, share):
    keys = np.array([*keys, 1001, 1002, 1003], np.uint64)  # some come twice
    labels = np.zeros(len(keys), np.int64)
    alone = hold_out_groups(keys, labels, np.arange(len(keys)), ["a"], share, "x")
    assert (alone == hold_out(keys, labels, ["a"], share, "x")).all()


def test_groups_with_an_image_in_common_are_one(one_line):
    keys = np.array([1, 2, 2, 3, 3, 4, 5, 6, 7, 8], np.uint64)
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, 6])  # 0, 1 and 2 hang together
    held = hold_out_groups(keys, np.zeros(10, np.int64), groups, ["a"], 0.25, "x")
    assert len(set(held[:6])) == 1
    assert held.any()
    message = one_line(hold_out_groups, keys[:6], np.zeros(6, np.int64), groups[:6], ["a"], 0.25, "x")
    assert "class 'a' lies in too few groups" in message


def test_a_pool_keeps_writers_together(written, monkeypatch, tmp_path):
    rows = split_manifest(written, 0.1, BY)
    places = {}
    for name, _, split in rows:
        places.setdefault(writer(name), set()).add(split)
    assert all(len(splits) == 1 for splits in places.values())
    counts = {s: sum(split == s for _, _, split in rows) for s in ("train", "val", "test")}
    assert 24 <= counts["val"] <= 36
    assert 24 <= counts["test"] <= 36
    for split in counts:
        found = load_split(written, split, RULE, 0.1, BY)
        assert set(found.ids) == {name for name, _, s in rows if s == split}
        assert set(load_split(written, split, RULE).ids) != set(found.ids)  # the cache keeps them apart
    moved = tmp_path / "elsewhere"
    shutil.copytree(written, moved)
    assert (
        load_split(moved, "test", RULE, 0.1, BY).fingerprint == load_split(written, "test", RULE, 0.1, BY).fingerprint
    )


def test_info_and_prepare_know_groups(written, capsys):
    words = [str(written), "--image-size", "8", "--group-by", BY, "--json"]
    assert main(["data", "info", *words]) == 0
    cold = json.loads(capsys.readouterr().out)
    assert main(["data", "prepare", *words]) == 0
    assert json.loads(capsys.readouterr().out)["decoded"] == 300
    assert main(["data", "info", *words]) == 0
    warm = json.loads(capsys.readouterr().out)
    assert warm["splits"] == cold["splits"]
    assert warm["cache"]["warm"]
    for name, split in warm["splits"].items():
        assert split["fingerprint"] == load_split(written, name, RULE, 0.1, BY).fingerprint


def test_arrays_in_memory_have_no_groups(digit_arrays, tiny_recipe):
    with pytest.raises(UsageError, match=r"data\.group_by: arrays have no ids"):
        Classifier(str(tiny_recipe), settings=["data.group_by=x"]).fit(*digit_arrays)


def test_val_is_held_out_of_a_brought_train(written, tmp_path):
    shutil.copytree(written, tmp_path / "set/train")
    shutil.copytree(written, tmp_path / "set/test")
    train, val = (load_split(tmp_path / "set", split, RULE, 0.1, BY) for split in ("train", "val"))
    assert not set(map(writer, train.ids)) & set(map(writer, val.ids))
    assert len(train) + len(val) == 300


def test_a_run_opens_the_same_images_again(written, tiny_recipe, tmp_path, capsys):
    words = ["train", str(tiny_recipe), "--data", str(written), "--out", str(tmp_path / "run"), "--device", "cpu"]
    settings = ["--set", f"data.group_by={BY}", "--set", "train.epochs=1", "--set", "augment.crop=false"]
    assert main([*words, *settings]) == 0
    assert re.search(r"group_by: [12] of \d+ ids do not match; each is a group of its own", capsys.readouterr().err)
    assert "group_by" in (tmp_path / "run/recipe.toml").read_text()
    with (tmp_path / "run/split.csv").open(newline="") as file:
        rows = [(row["id"], row["class"], row["split"]) for row in csv.DictReader(file)]
    assert rows == split_manifest(written, 0.1, BY)
    info = json.loads((tmp_path / "run/run.json").read_text())
    assert info["data"]["val"] == load_split(written, "val", PixelRule(16), 0.1, BY).fingerprint
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--full"]) == 0
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert main(["test", str(tmp_path / "run")]) == 0
    receipt = json.loads((tmp_path / "run/test.json").read_text())
    assert receipt["fingerprint"] == load_split(written, "test", PixelRule(16), 0.1, BY).fingerprint
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []  # thumbnails of its own val


def test_mistakes_are_one_line(written, tiny_recipe, digits_npz, tmp_path, capsys):
    shutil.copytree(written, tmp_path / "set/train")
    shutil.copytree(written, tmp_path / "set/val")
    shutil.copytree(written, tmp_path / "tested/train")
    shutil.copytree(written, tmp_path / "tested/test")
    for source, by, code, said, *more in (
        (written, "(", 2, "data.group_by"),
        (written, "nothing", 4, "matches no id"),
        (digits_npz, "x", 4, "no ids"),
        (tmp_path / "set", BY, 4, "group 'w00' lies in train and val"),
        (tmp_path / "tested", BY, 4, " lies in train and test. Move"),
        (tmp_path / "tested", BY, 4, "group 'w00' lies in train + val and test", "--refit"),
    ):
        words = ["train", str(tiny_recipe), "--data", str(source), "--out", str(tmp_path / "run"), "--device", "cpu"]
        assert main([*words, "--set", f"data.group_by={by}", *more]) == code
        lines = capsys.readouterr().err.splitlines()
        assert said in lines[-1]
        assert [line for line in lines if line.startswith("resfit: ")] == lines[
            -1:
        ]  # before it, what the layout is at most
        assert len(lines) <= 2
        assert not (tmp_path / "run").exists()
