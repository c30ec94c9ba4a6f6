"""The feed: streamed batches are those of images on the device; the thread ends with the loop; what fits is what is said."""

import threading

import numpy as np
import pytest
import torch

from resfit import machine
from resfit.data import feed as module
from resfit.data.feed import feed, memory_limit, pieces, place_images
from resfit.data.rows import Rows
from resfit.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (500, 3, 4, 4), np.uint8))
    return np.load(tmp_path / "a.npy", mmap_mode="r")


def feeding():
    return [thread for thread in threading.enumerate() if thread.name.startswith("resfit-feed")]


@pytest.mark.parametrize(("first", "last"), [(0, 16), (3, 16), (0, 15), (16, 16)])
def test_streamed_is_resident(mapped, first, last):
    rows = Rows((mapped,), np.random.default_rng(1).permutation(500)[:485])
    order = torch.randperm(485, generator=torch.Generator().manual_seed(0))
    whole = torch.from_numpy(rows[:])
    for images in (rows, whole):
        got = list(feed(images, order, 32, first, last, CPU))
        assert len(got) == min(last, 16) - first
        for number, (index, batch) in enumerate(got, first):
            assert torch.equal(index, order[32 * number : 32 * number + 32])
            assert torch.equal(batch, whole[index])
    assert not feeding()


@pytest.mark.parametrize("taken", [1, 3])
def test_thread_ends_when_the_loop_leaves_early(mapped, taken):
    batches = feed(mapped, torch.arange(500), 5, 0, 100, CPU)
    for _ in range(taken):
        next(batches)
    assert feeding()
    batches.close()
    assert not feeding()


def test_what_fails_in_the_thread_is_raised_in_the_loop(mapped, monkeypatch):
    def fail(images):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(module, "release", fail)
    with pytest.raises(OSError, match="Input/output"):
        list(feed(mapped, torch.arange(500), 5, 0, 100, CPU))
    assert not feeding()


def test_never_far_ahead(mapped, monkeypatch):
    read = []
    monkeypatch.setattr(module, "release", lambda images: read.append(1))
    batches = feed(mapped, torch.arange(500), 5, 0, 100, CPU)
    for taken in range(1, 20):
        next(batches)
        assert len(read) <= taken + module.AHEAD
    batches.close()


def test_placed_while_it_fits(mapped, monkeypatch, capsys):
    rows = Rows((mapped,), np.arange(0, 500, 2))
    for limit, kinds in (
        ("100k", [True, True]),
        ("15k", [True, False]),
        ("10k", [False, True]),
        ("1k", [False, False]),
    ):
        monkeypatch.setenv("RESFIT_MEMORY", limit)
        placed = place_images([rows, mapped[:100]], CPU)
        assert [isinstance(images, torch.Tensor) for images in placed] == kinds
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == kinds.count(False)
        assert all("read from the cache" in line for line in lines)
        for images, given in zip(placed, (rows, mapped[:100]), strict=True):
            np.testing.assert_array_equal(np.asarray(images[:]), given[:])


def test_pieces_are_all_of_it_once(mapped, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 48 * 77)
    found = list(pieces(mapped))
    assert [start for start, _ in found] == list(range(0, 500, 77))
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in found]), mapped)


def test_limit(monkeypatch):
    monkeypatch.delenv("RESFIT_MEMORY", raising=False)
    monkeypatch.setattr(module, "free_memory", lambda: 1000)
    assert memory_limit(CPU) == 500
    monkeypatch.setenv("RESFIT_MEMORY", "2.5G")
    assert memory_limit(CPU) == 2_500_000_000
    for bad in ("", "lots", "-1", "0"):
        monkeypatch.setenv("RESFIT_MEMORY", bad)
        with pytest.raises(UsageError, match=r"RESFIT_MEMORY: .* Write it as"):
            memory_limit(CPU)


def test_memory_left_under_a_control_group(tmp_path):
    def group(folder, **files):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(f"{text}\n")

    two, one = tmp_path / "two", tmp_path / "one"
    group(two / "a", memory__max=1000, memory__current=700, memory__stat="anon 1\ninactive_file 200")
    group(two / "a/b", memory__max="max", memory__current=5, memory__stat="inactive_file 0")
    (tmp_path / "own").write_text("0::/a/b\n")
    assert machine.memory_quota(two, tmp_path / "own") == 500
    facts = {"memory__limit_in_bytes": 900, "memory__usage_in_bytes": 1000}
    group(one / "memory/a", **facts, memory__stat="cache 9\ntotal_inactive_file 50")
    (tmp_path / "own").write_text("5:cpu:/x\n4:memory:/a\n")
    assert machine.memory_quota(one, tmp_path / "own") == 0
    assert machine.memory_quota(one, tmp_path / "none") > 2**60
    assert 2**20 < machine.free_memory() < 2**50
