"""Many files are decoded in processes: the same pixels and keys as in threads, and errors that name the file."""

import numpy as np
import pytest

from resfit.data import listing, workers
from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.errors import DataError

RULE = PixelRule(8)


@pytest.fixture
def folder(tmp_path, make):
    make.write_classes(tmp_path / "data" / "train", {"ant": 30, "bee": 31})
    return tmp_path / "data"


@pytest.fixture
def in_processes(monkeypatch):
    """Three processes, for however few files; what they were given is noted."""
    given = []
    real = workers.decode_files

    def spy(paths, rule, images, keys, processes):
        given.append((len(paths), processes))
        real(paths, rule, images, keys, processes)

    monkeypatch.setattr(listing, "_WORTH", 1)
    monkeypatch.setattr(listing, "default_threads", lambda: 3)
    monkeypatch.setattr(workers, "HEAD_START", 4)
    monkeypatch.setattr(listing, "decode_files", spy)
    return given


def test_same_as_in_threads(folder, in_processes, tmp_path, monkeypatch):
    many = load_split(folder, "train", RULE)
    assert in_processes == [(61, 3)]
    monkeypatch.setattr(listing, "_WORTH", 10**9)
    monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "other"))
    few = load_split(folder, "train", RULE)
    assert in_processes == [(61, 3)]
    np.testing.assert_array_equal(many.images[:], few.images[:])
    np.testing.assert_array_equal(many.keys, few.keys)
    assert many.fingerprint == few.fingerprint


@pytest.mark.parametrize("number", ["000", "020", "029"])  # a worker's share, another's, this process's own
@pytest.mark.parametrize("name", ["ant", "bee"])
def test_an_error_names_the_file_and_leaves_no_cache(folder, in_processes, tmp_path, name, number):
    path = folder / "train" / name / f"{number}.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=f"{name}/{number}.png"):
        load_split(folder, "train", RULE)
    assert in_processes
    assert not list((tmp_path / "cache" / "images").iterdir())


def test_a_worker_that_dies_is_an_error(folder, in_processes, monkeypatch):
    monkeypatch.setattr(workers, "_START", "import os; os._exit(9)")
    with pytest.raises(RuntimeError, match="worker ended with exit code 9"):
        load_split(folder, "train", RULE)
