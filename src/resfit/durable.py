"""The one writer for every file that matters: a reader sees the old file or the new one, whole, whatever crashes in between."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resfit.errors import ResourceError


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`: temporary file in the same folder, fsync, read back and checked, replace, fsync the folder.

    Raises ResourceError, with the old file untouched and no temporary file left, when the disk does not take it.
    """
    temporary = None
    try:
        make_folder(path.parent)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "w+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            if file.read() != data:
                raise OSError("read back differs from what was written")
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        reason = error.strerror or str(error)
        raise ResourceError(f"{path}: cannot be written: {reason}. Free space or choose another folder.") from error


def make_folder(folder: Path, exist_ok: bool = True) -> None:
    """Make a folder and what its path lacks, and sync each entry: what is then synced inside it survives a power cut.

    Raises OSError.
    """
    missing = []
    for place in (folder, *folder.parents):
        if place.exists():
            break
        missing.append(place)
    folder.mkdir(parents=True, exist_ok=exist_ok)
    for place in reversed(missing):
        sync_folder(place.parent)


def remove(path: Path, must: bool = False) -> None:
    """Remove a file that is no longer needed; where that does not work it stays, or ResourceError is raised if it `must`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if must:
            raise ResourceError(f"{path}: cannot be removed: {error.strerror}. Make its folder writable.") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON; NaN is refused (ValueError), since no other reader takes it."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def turn(path: Path) -> Iterator[None]:
    """Be the one process inside that reads and writes a file anew; others wait. Raises OSError. Freed by death."""
    make_folder(path.parent)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        with contextlib.suppress(ImportError):  # Windows has no fcntl
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def require_writable(folder: Path) -> None:
    """Raise ResourceError where a file could not be written to `folder`, or to what there is of its path; nothing is left."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be written: {error.strerror}. Choose another folder.") from error


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries: what was made or removed in it stays so. Raises OSError."""
    if os.name == "nt":  # Windows cannot open a folder; its replace is journalled
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
