"""The listing of a folder: what changes its signature, and that two processes see what one sees."""

import os
import subprocess
import sys

import pytest

from resfit.data import facts, tree
from resfit.data.tree import list_tree
from resfit.errors import DataError


@pytest.fixture
def top(tmp_path):
    for name in ("a/1.png", "a/2.JPG", "b/c/3.png", "b/ü \udcff.png", "b/notes.txt", ".hidden/4.png", "__MACOSX/5.png"):
        path = tmp_path / "top" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")
    (tmp_path / "top/empty").mkdir()
    (tmp_path / "top/link").symlink_to(tmp_path / "top/a")
    (tmp_path / "top/a/loop").symlink_to(tmp_path / "top")
    return tmp_path / "top"


def test_files_and_folders(top):
    found = list_tree(top)
    assert found.files() == ["a/1.png", "a/2.JPG", "b/c/3.png", "b/ü \udcff.png", "link/1.png", "link/2.JPG"]
    assert {name for name in found.folders if name.count("/") == 0} == {"", "a", "b", "empty", "link"}


CHANGES = {
    "overwritten in place": lambda top: os.utime(top / "a/1.png", ns=(0, (top / "a/1.png").stat().st_mtime_ns + 1)),
    "longer, same time": lambda top: longer(top / "b/c/3.png"),
    "added": lambda top: (top / "b/6.png").write_bytes(b"1"),
    "removed": lambda top: (top / "a/1.png").unlink(),
    "renamed": lambda top: (top / "a/1.png").rename(top / "a/0.png"),
    "moved": lambda top: (top / "a/1.png").rename(top / "b/1.png"),
    "a folder more": lambda top: (top / "new").mkdir(),
    "through a link": lambda top: (top / "link").unlink() or (top / "link").symlink_to(top / "b"),
}


def longer(path):
    before = path.stat()
    path.write_bytes(b"123456")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_noticed(top, change, processes, monkeypatch):
    monkeypatch.setattr(tree, "_WORTH", 1)
    monkeypatch.setattr(tree, "default_threads", lambda: processes)
    before = list_tree(top)
    assert list_tree(top) == before
    change(top)
    assert list_tree(top).signature != before.signature


def test_two_processes_see_what_one_sees(top, monkeypatch):
    alone = list_tree(top)
    monkeypatch.setattr(tree, "_WORTH", 1)
    monkeypatch.setattr(tree, "default_threads", lambda: 2)
    shares = []
    monkeypatch.setattr(facts, "pack", lambda folders, real=facts.pack: (shares.append(len(folders)), real(folders))[1])
    assert list_tree(top) == alone
    assert 0 < shares[0] < len(alone.folders)
    (top / "link/9.png").symlink_to(top / "nowhere")  # in the second half
    with pytest.raises(DataError, match=r"9\.png: cannot be read: No such file.*Check the link"):
        list_tree(top)


def test_the_script_without_the_package(top):
    packed = facts.pack([(os.fsencode(top / "a"), [b"1.png", b"2.JPG"]), (os.fsencode(top / "empty"), [])])
    done = subprocess.run([sys.executable, "-I", "-S", facts.__file__], input=packed, capture_output=True, check=True)
    assert done.stdout == facts.digest(os.fsencode(top / "a"), [b"1.png", b"2.JPG"]) + facts.digest(b"", [])
