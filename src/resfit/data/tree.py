"""The image files below a folder, and a signature that changes when one of them is added, removed, moved or overwritten.

Every file's size and time are looked at, each time: an image overwritten in place changes nothing else. Files are told apart
by their folder's scan alone, without an object a file that outlives it, since a warm cache needs the signature only.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from resfit.data.decode import EXTENSIONS
from resfit.errors import DataError


@dataclass(frozen=True)
class Tree:
    """folders: {path below the top, "" for itself: names of its image files, sorted}; signature: 32 hex digits."""

    folders: dict[str, list[str]]
    signature: str

    def files(self) -> list[str]:
        """Return the path below the top of every image file, sorted."""
        return sorted(
            f"{folder}/{name}" if folder else name for folder, names in self.folders.items() for name in names
        )


def list_tree(top: Path) -> Tree:
    """Return what is below `top`, links followed; raises DataError for a folder or link that cannot be read.

    Hidden files and folders, `__MACOSX` and whatever has no image extension are passed over.
    """
    folders: dict[str, list[str]] = {}
    facts: list[tuple[str, bytes]] = []

    def enter(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        stat = os.stat(folder)
        here = (stat.st_dev, stat.st_ino)
        if here in above and stat.st_ino:  # a link to a folder above it
            return
        inner, lines = _scan(folder)
        folders[prefix] = [line.partition("\0")[0] for line in lines]
        facts.append((prefix, hashlib.blake2b("\n".join(lines).encode("utf-8", "surrogateescape")).digest()))
        for name in inner:
            enter(os.path.join(folder, name), f"{prefix}/{name}" if prefix else name, above | {here})

    try:
        enter(str(top), "", frozenset())
    except OSError as error:
        where = error.filename or top
        raise DataError(f"{where}: cannot be read: {error.strerror}. Check the link or its permissions.") from error
    return Tree(
        folders, hashlib.blake2b(repr((str(top.resolve()), sorted(facts))).encode(), digest_size=16).hexdigest()
    )


def _scan(folder: str) -> tuple[list[str], list[str]]:
    """Return the folders in a folder and, sorted, a line for each of its images: name, size and time in nanoseconds."""
    inner, lines = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name[0] == "." or name == "__MACOSX":
                continue
            if entry.is_dir():
                inner.append(name)
            elif name.lower().endswith(EXTENSIONS):
                stat = entry.stat()
                lines.append(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}")
    lines.sort()
    return inner, lines
