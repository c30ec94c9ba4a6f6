"""What a disk may hold after a power cut: recorded calls replayed, and what was not synced missing, cut, zeroed or reordered.

The model is POSIX's letter, stricter than ext4 or xfs: only fsync of a file keeps its bytes, and only fsync of a folder keeps
its entries, the entry of a new folder in its parent included. A rename is atomic, and what is synced stays.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import watch

HEX = re.compile(r"\\x([0-9a-f]{2})")
QUOTED = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
FATES = ("kept", "missing", "cut", "zeroed")


@dataclass
class Inode:
    """A file: its bytes, those that are synced, or a folder: its entries, those that are synced, and the changes since."""

    live: bytes = b""
    synced: bytes = b""
    folder: bool = False
    entries: dict[str, "Inode"] = field(default_factory=dict)
    kept: dict[str, "Inode"] = field(default_factory=dict)
    changes: list[tuple[str, str, "Inode | None"]] = field(
        default_factory=list
    )  # a name taken, a name given, what it names

    def change(self, taken: str, given: str, what: "Inode | None") -> None:
        """Change an entry; it is not synced."""
        if taken:
            self.entries.pop(taken, None)
        if given and what is not None:
            self.entries[given] = what
        self.changes.append((taken, given, what))


class Disk:
    """The folder `top` and all below, as recorded calls leave it."""

    def __init__(self, top: Path) -> None:
        self.top, self.root = top, Inode(folder=True)
        self.open: dict[int, Inode] = {}
        for path in sorted(top.rglob("*")) if top.exists() else []:
            made = Inode(path.read_bytes(), path.read_bytes()) if path.is_file() else Inode(folder=True)
            parent = self.find(path.parent)
            assert parent is not None
            parent.entries[path.name] = parent.kept[path.name] = made

    def find(self, path: Path) -> Inode | None:
        """Return what lies at a path, or None."""
        inode: Inode | None = self.root
        for name in path.relative_to(self.top).parts:
            inode = inode.entries.get(name) if inode is not None else None
        return inode

    def do(self, call: watch.Call) -> bool:
        """Carry out a call; returns whether it was one of this disk that may change it or sync it."""
        handle = int(call.arguments.partition("<")[0]) if re.match(r"\d+<", call.arguments) else -1
        if call.name == "close":
            return self.open.pop(handle, None) is not None and False
        if not call.returned.isdigit():
            return False
        texts = _texts(call.arguments)
        if call.name in ("write", "fsync", "fdatasync", "ftruncate", "pwrite64", "fallocate"):
            return handle in self.open and self._on_handle(call, handle, texts)
        paths = [Path(text.decode()) for text in texts]
        if not paths or not all(path.is_relative_to(self.top) for path in paths):
            return False
        return self._on_path(call, paths)

    def _on_handle(self, call: watch.Call, handle: int, texts: list[bytes]) -> bool:
        inode = self.open[handle]
        if call.name in ("fsync", "fdatasync"):
            inode.synced = inode.live
            inode.kept, inode.changes = dict(inode.entries), []
        else:
            assert call.name == "write", f"{call.name} is not modelled"
            inode.live += texts[0][
                : int(call.returned)
            ]  # every writer of ours writes from the start to the end, or appends
        return True

    def _on_path(self, call: watch.Call, paths: list[Path]) -> bool:
        path = paths[0]
        parent = self.find(path.parent) if path != self.top else None
        if call.name == "openat":
            return self._open(call, path, parent)
        assert parent is not None, f"{call.name} outside"
        if call.name == "mkdir":
            parent.change("", path.name, Inode(folder=True))
        elif call.name in ("unlink", "rmdir"):
            parent.change(path.name, "", None)
        elif call.name == "rename":
            assert paths[1].parent == path.parent, "a rename from folder to folder is not modelled"
            parent.change(path.name, paths[1].name, parent.entries[path.name])
        else:
            assert call.name in ("chmod", "unlinkat"), f"{call.name} is not modelled"
            assert call.name == "chmod" or "AT_REMOVEDIR" not in call.arguments
            return False
        return True

    def _open(self, call: watch.Call, path: Path, parent: Inode | None) -> bool:
        inode = self.find(path)
        created = inode is None
        if inode is None:
            inode = Inode()
            assert parent is not None
            assert "O_CREAT" in call.arguments
            parent.change("", path.name, inode)
        truncated = "O_TRUNC" in call.arguments and bool(inode.live)
        if truncated:
            inode.live = b""
        self.open[int(call.returned)] = inode
        return created or truncated


@cache
def _texts(arguments: str) -> list[bytes]:
    return [bytes.fromhex(text.replace("\\x", "")) for text in QUOTED.findall(arguments)]


def write_state(inode: Inode, place: Path, fate: str, draw: random.Random) -> None:
    """Write to `place` what a cut leaves of a folder: synced, and of the rest what `fate` says, or chance for `reordered`."""
    place.mkdir(parents=True, exist_ok=True)
    entries = dict(inode.kept)
    for taken, given, what in _survivors(inode.changes, fate, draw):
        entries.pop(taken, None)
        if given and what is not None:
            entries[given] = what
    for name, item in entries.items():
        if item.folder:
            write_state(item, place / name, fate, draw)
        else:
            (place / name).write_bytes(_content(item, fate if fate in FATES else draw.choice(FATES), draw))


def _survivors(
    changes: Sequence[tuple[str, str, Inode | None]], fate: str, draw: random.Random
) -> list[tuple[str, str, Inode | None]]:
    if fate == "missing":
        return []
    if fate == "first ones":
        return list(changes[: draw.randint(0, len(changes))])
    if fate == "reordered":
        return [change for change in changes if draw.random() < 0.5]
    return list(changes)


def _content(inode: Inode, fate: str, draw: random.Random) -> bytes:
    if inode.live == inode.synced or fate == "kept":
        return inode.live
    if fate == "missing":
        return inode.synced
    grown = inode.live.startswith(inode.synced)
    old = len(inode.synced) if grown else 0
    if fate == "cut":
        return inode.live[: draw.randint(old, len(inode.live))]
    return inode.live[:old] + bytes(len(inode.live) - old)  # the length is on disk, the bytes are not
