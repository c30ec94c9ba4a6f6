"""The cache: opened without decoding again, built by several processes at once, rebuilt when damaged."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from resfit.data import cache, listing
from resfit.data.images import ImageSet, PixelRule
from resfit.data.sources import load_split

RULE = PixelRule(8)


@pytest.fixture
def top(make, tmp_path):
    make.write_classes(tmp_path / "set/train", {"ant": 12, "bee": 12})
    return tmp_path / "set"


@pytest.fixture
def entries(tmp_path):
    return lambda: sorted((tmp_path / "cache/images").iterdir())


def same(a: ImageSet, b: ImageSet) -> bool:
    return (
        a.fingerprint == b.fingerprint
        and (a.images[:] == b.images[:]).all()
        and (a.keys == b.keys).all()
        and (a.labels == b.labels).all()
        and a.ids == b.ids
        and a.class_names == b.class_names
        and a.source == b.source
    )


def test_second_open_decodes_nothing(top, make, tmp_path, monkeypatch):
    archive = make.tar_of(tmp_path / "c.tar.gz", make.cifar10_python())
    first = [load_split(s, "trainval", RULE) for s in (top, archive)]
    for name in ("decode", "fit", "read_file", "key_of"):
        monkeypatch.setattr(listing, name, None)
    second = [load_split(s, "trainval", RULE) for s in (top, archive)]
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert all(isinstance(s.images, np.memmap) for s in second)


def test_rules_and_changes_have_entries_of_their_own(top, make, entries):
    load_split(top, "trainval", RULE)
    load_split(top, "train", RULE)
    assert len(entries()) == 1
    load_split(top, "trainval", PixelRule(4))
    assert len(entries()) == 2
    os.utime(top / "train/ant/000.png", (1, 1))
    load_split(top, "trainval", RULE)
    assert len(entries()) == 3


def test_damage_is_rebuilt(top, entries, capsys):
    whole = load_split(top, "trainval", RULE)
    (entry,) = entries()
    for name in ("images.npy", "labels.npy", "keys.npy", "meta.json"):
        data = (entry / name).read_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 2 if name != "images.npy" else 3] ^= 1
        for bad in (b"", data[: len(data) // 2], data[:-2], bytes(flipped), None):
            (entry / name).unlink()
            if bad is not None:
                (entry / name).write_bytes(bad)
            assert same(load_split(top, "trainval", RULE), whole)
            assert entries() == [entry]
            assert (entry / name).read_bytes() == data
    assert capsys.readouterr().err == ""


def test_damaged_listing_is_rebuilt(make, tmp_path):
    files = {f"{c}/{i}.png": make.encode(make.noise(100 * n + i)) for n, c in enumerate("ab") for i in range(5)}
    archive = make.tar_of(tmp_path / "a.tar.gz", files)
    before = load_split(archive, "trainval", RULE)
    (stored,) = (tmp_path / "cache/listings").iterdir()
    data = stored.read_bytes()
    for bad in (b"", data[:-9], data.replace(b"a/0.png", b"a/9.png"), json.dumps({"value": 3}).encode(), b"[]"):
        stored.write_bytes(bad)
        assert same(load_split(archive, "trainval", RULE), before)
        assert stored.read_bytes() == data


def test_failure_leaves_nothing(top, entries, one_line):
    (top / "train/bee/zzz.png").write_bytes(b"x")
    one_line(load_split, top, "trainval", RULE)
    assert entries() == []


@pytest.mark.parametrize("kind", ["file in its place", "full disk", "short write"])
def test_unwritable_falls_back_to_memory(top, tmp_path, monkeypatch, capsys, kind):
    expected = load_split(top, "trainval", RULE)
    if kind == "full disk":
        monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "other"))

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
    elif kind == "short write":
        monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "other"))

        def short(*_):
            raise ValueError("mmap length is greater than file size")  # as numpy says it (reliability's `errors`)

        monkeypatch.setattr(np.lib.format, "open_memmap", short)
    else:
        (tmp_path / "other").write_text("a file")
        monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "other"))
    capsys.readouterr()
    found = load_split(top, "trainval", RULE)
    assert same(found, expected)
    assert not isinstance(found.images, np.memmap)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "not cached" in lines[0]
    assert kind == "file in its place" or list((tmp_path / "other/images").iterdir()) == []


def test_where_it_is(tmp_path, monkeypatch):
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("RESFIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg/resfit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache/resfit"


READ = """
import sys
from resfit.data.images import PixelRule
from resfit.data.sources import load_split
print(load_split(sys.argv[1], "trainval", PixelRule(8)).fingerprint)
"""

SLOW = (
    """
import sys, time
from resfit.data import listing
real = listing.decode
def decode(*a):
    print("decoding", flush=True)
    time.sleep(60)
    return real(*a)
listing.decode = decode
"""
    + READ
)


def start(code, source):
    return subprocess.Popen([sys.executable, "-c", code, str(source)], stdout=subprocess.PIPE, text=True)


def test_processes_build_at_once(top, entries):
    builders = [start(READ, top) for _ in range(5)]
    said = [b.communicate(timeout=60)[0] for b in builders]
    assert [b.returncode for b in builders] == [0] * 5
    assert len(set(said)) == 1
    assert len(entries()) == 1
    assert load_split(top, "trainval", RULE).fingerprint == said[0].strip()


def test_killed_in_the_middle(top, entries):
    builder = start(SLOW, top)
    assert builder.stdout.readline() == "decoding\n"
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    (left,) = entries()
    assert left.name.startswith(".building-")
    assert len(load_split(top, "trainval", RULE)) == 24
    assert len(entries()) == 2  # what is left may belong to a live process: it goes after a day
    for path in (left, *left.iterdir()):
        os.utime(path, (time.time() - 90_000,) * 2)
    load_split(top, "trainval", PixelRule(4))
    assert left not in entries()
