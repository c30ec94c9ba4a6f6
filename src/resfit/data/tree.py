"""The image files below a folder, and a signature that changes when one of them is added, removed, moved or overwritten.

Every file's size and time are looked at, each time, since an image overwritten in place changes nothing else; where there are
many, a second process looks at half of them.
"""

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from resfit.data import facts
from resfit.data.facts import Folder
from resfit.data.formats import EXTENSIONS, UNREAD
from resfit.errors import DataError
from resfit.machine import default_threads

_WORTH = 20_000  # files from which on a second process, which starts in 20 ms, pays


@dataclass(frozen=True)
class Tree:
    """folders: {path below the top, "" for itself: names of its image files, sorted}; signature: 32 hex digits.

    not_followed: the number of links that were passed over. unread: {ending: number of images in formats that are not read}.
    """

    folders: dict[str, list[str]]
    signature: str
    not_followed: int = 0
    unread: Counter[str] = field(default_factory=Counter)

    def files(self) -> list[str]:
        """Return the path below the top of every image file, sorted."""
        return sorted(
            f"{folder}/{name}" if folder else name for folder, names in self.folders.items() for name in names
        )


def list_tree(top: Path, inside: bool = False) -> Tree:
    """Return what is below `top`, links followed; raises DataError for a folder or link that cannot be read.

    Hidden files and folders, `__MACOSX` and whatever has no image extension are passed over. With `inside` no link leads out
    of `top`: one to a place that is not below it, or round in circles, is not followed, and counted. A folder reached by a link
    has its own links to folders left alone: where they lead is listed from there too, and each more would multiply the paths.
    """
    folders: dict[str, list[str]] = {}
    real, passed, unread = os.path.realpath(top), 0, Counter[str]()

    def leads_out(entry: "os.DirEntry[str]") -> bool:
        try:
            entry.stat()
        except FileNotFoundError:
            pass  # to nothing: said where it is read, if nothing is where it may lead
        except OSError as error:
            if error.errno == errno.ELOOP:
                return True
            raise
        return not Path(os.path.realpath(entry.path)).is_relative_to(real)

    def enter(folder: str, prefix: str, above: frozenset[tuple[int, int]], linked: bool = False) -> None:
        nonlocal passed
        stat = os.stat(folder)
        here = (stat.st_dev, stat.st_ino)
        if here in above and stat.st_ino:  # a link to a folder above it
            passed += 1
            return
        inner, names, links = [], [], set[str]()
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == "." or name == "__MACOSX":
                    continue
                if inside and entry.is_symlink():
                    if leads_out(entry):
                        passed += not linked  # there it is counted too
                        continue
                    links.add(name)
                    if linked and entry.is_dir():
                        continue
                if entry.is_dir():
                    inner.append(name)
                elif name.lower().endswith(EXTENSIONS):
                    names.append(name)
                elif name.lower().endswith(UNREAD):
                    unread[os.path.splitext(name)[1].lower()] += 1
        folders[prefix] = sorted(names)
        for name in sorted(inner):
            path = f"{prefix}/{name}" if prefix else name
            enter(os.path.join(folder, name), path, above | {here}, linked or name in links)

    try:
        enter(str(top), "", frozenset())
        digests = _digests(
            [(os.fsencode(top / prefix), [*map(os.fsencode, names)]) for prefix, names in folders.items()]
        )
    except OSError as error:
        where = os.fsdecode(error.filename) if error.filename else top
        raise DataError(f"{where}: cannot be read: {error.strerror}. Check the link or its permissions.") from error
    all_of_it = repr((str(top.resolve()), list(folders), digests)).encode()
    return Tree(folders, hashlib.blake2b(all_of_it, digest_size=16).hexdigest(), passed, unread)


def _digests(folders: list[Folder]) -> bytes:
    """Return the digest of each folder's files, end to end; raises OSError."""
    total, own = sum(len(names) for _, names in folders), 0
    shared = len(folders)
    if total >= _WORTH and default_threads() > 1:
        for shared, (_, names) in enumerate(folders):  # noqa: B007 - where the second half begins is what is wanted
            if own >= 0.55 * total:  # the second process starts later
                break
            own += len(names)
    mine, others = folders[:shared], folders[shared:]
    if not others:
        return b"".join(facts.digest(*folder) for folder in mine)
    with tempfile.TemporaryFile() as job:
        job.write(facts.pack(others))
        job.seek(0)
        command = [sys.executable, "-I", "-S", facts.__file__]
        with subprocess.Popen(command, stdin=job, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as second:
            first = b"".join(facts.digest(*folder) for folder in mine)
            assert second.stdout is not None
            rest = second.stdout.read()
    if second.returncode != 0:  # a file that cannot be looked at: said here
        rest = b"".join(facts.digest(*folder) for folder in others)
    return first + rest
