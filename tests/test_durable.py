"""The one writer: old or new, whole, and nothing left over."""

import os
from pathlib import Path

import pytest

from resfit import durable
from resfit.errors import ResourceError


def test_replaces_whole_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "deep" / "file"
    durable.write_bytes(path, b"old")
    durable.write_bytes(path, b"new" * 1000)
    assert path.read_bytes() == b"new" * 1000
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failing_disk_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    durable.write_bytes(path, b"old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ResourceError, match="cannot be written: No space left on device"):
        durable.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        durable.write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        durable.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_a_folder_that_cannot_be_written_is_said_and_nothing_is_made(tmp_path):
    durable.require_writable(tmp_path / "new" / "er")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ResourceError, match=r"/proc/results: cannot be written: .* Choose another folder"):
        durable.require_writable(Path("/proc/results"))
