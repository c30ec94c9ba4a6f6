"""The front door: splits that follow from content alone, the manifest, images without labels, readers from outside."""

import os
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resfit.data import listing, sources
from resfit.data.images import PixelRule
from resfit.data.listing import Source
from resfit.data.sources import load_split, split_manifest
from resfit.data.splits import hold_out
from resfit.data.unlabelled import load_unlabelled
from resfit.errors import UsageError

RULE = PixelRule(8)
ALL = ("train", "val", "test")


def keys_of(source, split, rule=RULE):
    return set(load_split(source, split, rule).keys.tolist())


@pytest.fixture
def pool(make, tmp_path):
    make.write_classes(tmp_path / "pool", {"ant": 30, "bee": 20, "cow": 3})
    return tmp_path / "pool"


def test_a_pool_is_split_by_class(pool):
    parts = {s: load_split(pool, s, RULE) for s in ALL}
    counts = {s: np.bincount(p.labels, minlength=3).tolist() for s, p in parts.items()}
    assert counts == {"train": [24, 16, 1], "val": [3, 2, 1], "test": [3, 2, 1]}
    keys = [set(p.keys.tolist()) for p in parts.values()]
    assert len(set.union(*keys)) == sum(map(len, keys)) == 53
    both = load_split(pool, "trainval", RULE)
    assert set(both.keys.tolist()) == keys[0] | keys[1]
    assert list(both.ids) == sorted(both.ids)


def test_names_order_and_rule_do_not_matter(pool, tmp_path):
    before = {s: keys_of(pool, s) for s in ALL}
    assert {s: keys_of(pool, s, PixelRule(5)) for s in ALL} == before
    for number, path in enumerate(sorted(pool.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"z{number * 7919 % 1000:05}.png"))
    assert {s: keys_of(pool, s) for s in ALL} == before
    shutil.make_archive(str(tmp_path / "p"), "zip", pool)
    assert {s: keys_of(tmp_path / "p.zip", s) for s in ALL} == before


def test_duplicates_stay_on_one_side(pool):
    for path in list((pool / "ant").iterdir()):
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    keys = [keys_of(pool, s) for s in ALL]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert sum(len(load_split(pool, s, RULE)) for s in ALL) == 83


def test_val_is_held_out_of_train(make, tmp_path):
    make.write_classes(tmp_path / "s/train", {"ant": 40, "bee": 10})
    train, val = load_split(tmp_path / "s", "train", RULE), load_split(tmp_path / "s", "val", RULE)
    assert np.bincount(val.labels).tolist() == [4, 1]
    assert np.bincount(load_split(tmp_path / "s", "val", RULE, 0.25).labels).tolist() == [10, 3]
    assert not set(train.keys.tolist()) & set(val.keys.tolist())
    assert len(load_split(tmp_path / "s", "trainval", RULE)) == 50
    assert "held out" in val.source


def test_too_few_images(make, tmp_path, one_line):
    make.write_classes(tmp_path / "p", {"ant": 9, "bee": 2})
    assert "'bee' has 2 distinct" in one_line(load_split, tmp_path / "p", "train", RULE)
    make.write_classes(tmp_path / "q/train", {"ant": 9, "bee": 1})
    shutil.copy(tmp_path / "q/train/bee/000.png", tmp_path / "q/train/bee/001.png")
    assert "'bee' has 1 distinct" in one_line(load_split, tmp_path / "q", "val", RULE)
    assert len(load_split(tmp_path / "q", "trainval", RULE)) == 11


@settings(max_examples=100, deadline=None)
@given(
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=60, unique=True),
    share=st.floats(0.01, 0.99),
    copies=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_hold_out_is_a_function_of_the_keys(keys, share, copies, seed):
    keys = np.array(keys * copies, np.uint64)
    labels = np.zeros(len(keys), np.int64)
    held = hold_out(keys, labels, ["a"], share, "x")
    order = np.random.default_rng(seed).permutation(len(keys))
    assert (hold_out(keys[order], labels, ["a"], share, "x") == held[order]).all()
    assert not set(keys[held].tolist()) & set(keys[~held].tolist())
    distinct = len(keys) // copies
    count = held.sum() // copies
    assert 1 <= count < distinct
    assert abs(count - distinct * share) <= 1


def test_who_is_held_out_never_changes():
    """Golden: a change here silently changes everybody's validation and test images."""
    keys = np.arange(20, dtype=np.uint64)
    held = hold_out(keys, np.zeros(20, np.int64), ["a"], 0.2, "x")
    assert np.flatnonzero(held).tolist() == [3, 10, 11, 18]


def test_reading_train_decodes_no_test_image(pool, make, monkeypatch):
    seen = []
    monkeypatch.setattr(listing, "decode", lambda data, rule, where: (seen.append(where), np.zeros((3, 8, 8)))[1])
    for split in ("train", "val", "trainval"):
        load_split(pool, split, RULE)
    tests = {i for i, _, s in split_manifest(pool) if s == "test"}
    assert len(seen) == 47  # train and val, once
    assert not {os.path.relpath(s, pool) for s in seen} & tests


def test_manifest(pool, make, tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "decode", None)
    rows = split_manifest(pool)
    monkeypatch.undo()
    monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "cache"))
    assert len(rows) == 53
    for split in ALL:
        found = load_split(pool, split, RULE)
        assert {i for i, _, s in rows if s == split} == set(found.ids)
        assert {(i, c) for i, c, s in rows if s == split} == {
            (i, found.class_names[label]) for i, label in zip(found.ids, found.labels, strict=True)
        }
    make.write_classes(tmp_path / "s/train", {"ant": 10, "bee": 10})
    make.write_classes(tmp_path / "s/test", {"ant": 2, "bee": 2}, 500)
    rows = split_manifest(tmp_path / "s")
    val = load_split(tmp_path / "s", "val", RULE)
    assert {i for i, _, s in rows if s == "val"} == set(val.ids)
    assert sum(s == "test" for _, _, s in rows) == 4
    digits = split_manifest("digits")
    assert sum(s == "val" for _, _, s in digits) == len(load_split("digits", "val", RULE))


def test_unlabelled_paths_in_the_order_given(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make.write_classes(tmp_path / "in", {"b": 2, "a": 1})
    (tmp_path / "in/top.PNG").write_bytes(make.encode(make.noise(50)))
    (tmp_path / "in/notes.txt").write_text("no image")
    (tmp_path / "odd.name").write_bytes(make.encode(make.noise(51)))
    np.savez(tmp_path / "n.npz", images=np.zeros((2, 8, 8), np.uint8))
    found = load_unlabelled(["odd.name", "in", "n.npz"], RULE)
    assert found.ids == ("odd.name", "in/a/000.png", "in/b/000.png", "in/b/001.png", "in/top.PNG", "0", "1")
    assert found.images.shape == (7, 3, 8, 8)
    assert (found.images[:][0] == make.noise(51).transpose(2, 0, 1)).all()
    assert found.fingerprint == load_unlabelled(["n.npz", "in", "odd.name"], RULE).fingerprint


def test_unlabelled_refusals(tmp_path, one_line):
    assert "does not exist" in one_line(load_unlabelled, [tmp_path / "no.png"], RULE)
    (tmp_path / "empty").mkdir()
    assert "no images" in one_line(load_unlabelled, [tmp_path / "empty"], RULE)
    (tmp_path / "bad.png").write_bytes(b"")
    assert "bad.png: the file is empty" in one_line(load_unlabelled, [tmp_path / "bad.png"], RULE)
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe.png: " in one_line(load_unlabelled, [tmp_path / "pipe.png"], RULE)
    with pytest.raises(UsageError):
        load_unlabelled([], RULE)


def test_unknown_sources(tmp_path, one_line):
    assert "'cifar10'" in one_line(load_split, "cifra10", "train", RULE)
    assert "neither a path" in one_line(load_split, tmp_path / "nowhere", "train", RULE)
    (tmp_path / "a.doc").write_text("1")
    assert "not a layout" in one_line(load_split, tmp_path / "a.doc", "train", RULE)
    for bad in (0, 1, -0.5, float("nan")):
        with pytest.raises(UsageError):
            load_split("digits", "val", RULE, bad)
    with pytest.raises(UsageError):
        load_split("digits", "dev", RULE)


def test_readers_from_outside(monkeypatch, one_line):
    class Point:
        name, value = "zeros", "zeros_package:reader"
        dist = types.SimpleNamespace(name="zeros-package")

        def __init__(self, reader):
            self.reader = reader

        def load(self):
            if isinstance(self.reader, Exception):
                raise self.reader
            return self.reader

    def installed(reader):
        monkeypatch.setattr(sources, "entry_points", lambda group: [Point(reader)] if group == sources.GROUP else [])

    digits = sources.open_source("digits")
    good = types.SimpleNamespace(
        recognises=lambda s: s == "zeros", open_source=lambda s: Source(s, ("all",), digits.list_split)
    )
    installed(good)
    assert len(load_split("zeros", "test", RULE)) == len(load_split("digits", "test", RULE))
    installed(ImportError("no module"))
    load_split("digits", "test", RULE)  # never loaded where a built-in reader knows the source
    assert "zeros-package" in one_line(load_split, "zeros", "test", RULE)
    installed(types.SimpleNamespace(recognises=lambda s: True))
    assert "zeros-package" in one_line(load_split, "zeros", "test", RULE)
    installed(types.SimpleNamespace(recognises=lambda s: True, open_source=lambda s: 3))
    assert "zeros-package" in one_line(load_split, "zeros", "test", RULE)


def test_import_is_light():
    code = "import sys, resfit.data.sources; print([m for m in ('torch', 'pydantic', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_dangling_link(pool, one_line):
    (pool / "ant/999.png").symlink_to(pool / "nowhere.png")
    assert "999.png" in one_line(load_split, pool, "train", RULE)
