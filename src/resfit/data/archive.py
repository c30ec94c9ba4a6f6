"""Read members of .tar and .zip archives in memory, one after the other; nothing is ever extracted to disk."""

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from resfit.data.keys import MOST_BYTES
from resfit.errors import DataError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


def is_archive(path: Path) -> bool:
    """Return whether `path` is a file whose name ends like an archive's."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def first_files(path: Path, most: int) -> list[str]:
    """Return the names of the first files in an archive, at most `most`; reads no further than that."""
    with _errors_named(path):
        return [name for name, _, _ in islice((m for m in _members(path, ()) if not m[1]), most)]


def list_members(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of all files and of all folders in an archive, in its order, without a leading "./"."""
    files: list[str] = []
    folders: list[str] = []
    with _errors_named(path):
        for name, is_folder, _ in _members(path, ()):
            (folders if is_folder else files).append(name)
    return files, folders


def read_members(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) for the files of an archive named in `wanted`, in the archive's order.

    Raises DataError for an archive that is damaged or truncated, and for a member larger than `MOST_BYTES`.
    """
    with _errors_named(path):
        for name, _, data in _members(path, wanted):
            if data is not None:
                yield name, data


def _members(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, bool, bytes | None]]:
    """Yield (name, is_folder, bytes or None) for every file and folder; not links, devices and paths with ".."."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as zipped:
            for info in zipped.infolist():
                spelt = info.filename.replace("\\", "/")  # as some programs on Windows write them
                name, is_folder = _plain(spelt), spelt.endswith("/")
                if name is None:
                    continue
                data = None
                if name in wanted and not is_folder:
                    _check_size(path, name, info.file_size)
                    data = zipped.read(info)
                yield name, is_folder, data
        return
    with _unpacked(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            name = _plain(member.name)
            if name is None or not (member.isreg() or member.isdir()):
                continue
            data = None
            if name in wanted and member.isreg():
                _check_size(path, name, member.size)
                file = tar.extractfile(member)
                data = file.read() if file is not None else b""
            yield name, member.isdir(), data
            cast(Any, tar).members = []  # a stream of 10^6 members would otherwise remember them all


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """Open a .tar, compressed or not; EOFError for a cut-off one, which tarfile's own streams take for short."""
    with path.open("rb") as file:
        magic = file.read(6)
        if not magic.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
            file.seek(-min(512, path.stat().st_size), 2)
            if any(file.read()):  # an archive ends with two blocks of zeros
                raise EOFError("no end mark")
        file.seek(0)
        opened: Any = file
        if magic.startswith(b"\x1f\x8b"):
            opened = gzip.GzipFile(fileobj=file)
        elif magic.startswith(b"BZh"):
            opened = bz2.BZ2File(file)
        elif magic.startswith(b"\xfd7zXZ"):
            opened = lzma.LZMAFile(file)  # noqa: SIM115 (closed below)
        with opened:
            yield opened


def _plain(name: str) -> str | None:
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\0" in name or not pure.parts:
        return None
    return str(pure)


def _check_size(path: Path, name: str, size: int) -> None:
    if size > MOST_BYTES:
        raise DataError(f"{path}:{name}: larger than {MOST_BYTES >> 20} MiB, too large to be read. Remove it.")


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    damaged = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)
    try:
        yield
    except damaged as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: damaged or truncated archive ({reason}). Fetch it again.") from error
    except RuntimeError as error:  # zipfile's word for a password
        raise DataError(f"{path}: cannot be read ({error}). Give an archive without a password.") from error
    except OSError as error:  # gzip's and bz2's damage comes as OSError too
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}). Check the file, or fetch it again."
        ) from error
