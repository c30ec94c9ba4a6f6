"""Decoded images on disk: memory-mapped, keyed by what the source files look like, never half-written.

An entry is built in a folder beside its place and renamed, so that a crash leaves nothing half-written in place and two
processes may build the same entry at once. `$RESFIT_CACHE`, else `$XDG_CACHE_HOME/resfit`, else `~/.cache/resfit`.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data.images import ImageSet
from resfit.data.listing import Allocate
from resfit.durable import write_json
from resfit.errors import ResourceError
from resfit.escaping import visible
from resfit.machine import free_memory

FORMAT = 3  # raise it when decoded pixels, keys or the layout of an entry change
_BUILDING = ".building-"
_STALE = 24 * 3600  # seconds after which the remains of a killed build are removed


def cache_folder() -> Path:
    """Return the folder of everything that can be made again; it may not exist yet."""
    if given := os.environ.get("RESFIT_CACHE"):
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "resfit"


def cached(key: dict[str, Any], build: Callable[[Allocate], ImageSet]) -> ImageSet:
    """Return the ImageSet stored under `key` (JSON values), built first if it is missing or damaged.

    build(allocate) gets its image array from allocate(shape). Where the cache folder cannot be written, the images stay
    in memory and one line on stderr says so.
    """
    place = cache_folder() / "images" / _name(key)
    found = _open_entry(place)
    if found is not None:
        return found
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(place.parent)
        temporary = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=place.parent))
        _fill(temporary, build)
        stored = _publish(temporary, place)
    except (OSError, ResourceError) as error:  # of the cache folder: what the source brings arrives as DataError
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        line = f"{place.parent}: not cached: {reason}. Set RESFIT_CACHE to a writable folder."
        print(f"resfit: {visible(line)}", file=sys.stderr)
        stored = None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return stored if stored is not None else build(in_memory)


def find_cached(key: dict[str, Any]) -> ImageSet | None:
    """Return the ImageSet stored under `key`, or None if there is none that is whole."""
    return _open_entry(cache_folder() / "images" / _name(key))


def in_memory(shape: tuple[int, ...]) -> np.ndarray:
    """Return an empty uint8 array outside the cache; raises ResourceError where memory is too small for it."""
    size, free = math.prod(shape), free_memory()
    if size > free:
        raise ResourceError(
            f"memory: {shape[0]:,} images take {size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free. Set RESFIT_CACHE to a "
            "folder with room, or take fewer images."
        )
    return np.empty(shape, np.uint8)


def cached_json(key: dict[str, Any], build: Callable[[], Any]) -> Any:
    """Return the JSON value stored under `key`, built first if it is missing or damaged."""
    place = cache_folder() / "listings" / f"{_name(key)}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(place.read_bytes())
        if stored["digest"] == _digest(json.dumps(stored["value"]).encode()):
            return stored["value"]
    value = build()
    with contextlib.suppress(ResourceError):  # the images that follow will say so
        write_json(place, {"digest": _digest(json.dumps(value).encode()), "value": value})
    return value


def _name(key: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps({"format": FORMAT, **key}, sort_keys=True).encode(), digest_size=16).hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _fill(folder: Path, build: Callable[[Allocate], ImageSet]) -> None:
    """Build an entry in `folder`, meta.json last."""

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        path = folder / "images.npy"
        try:
            images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        except ValueError as error:  # the file is shorter than what was written to it
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from error
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, not a bus error in the middle of decoding
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return images

    built = build(allocate)
    if isinstance(built.images, np.memmap):
        built.images.flush()
    np.save(folder / "keys.npy", built.keys)
    if built.labels is not None:
        np.save(folder / "labels.npy", built.labels)
    if built.ids is not None:  # apart: parsed and checked at every opening
        (folder / "ids.json").write_text(json.dumps(built.ids))
    meta = {
        "shape": list(built.images.shape),
        "class_names": list(built.class_names),
        "source": built.source,
        "digests": {file.name: _digest(file.read_bytes()) for file in _small_files(folder)},
    }
    write_json(folder / "meta.json", {"digest": _digest(json.dumps(meta).encode()), "meta": meta})


def _small_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.name in ("keys.npy", "labels.npy", "ids.json"))


def _open_entry(place: Path) -> ImageSet | None:
    """Return the entry at `place`, or None if it is missing or not whole.

    The digests of all but the pixels are checked; of the pixels, only the size: reading them all would cost what the
    map saves.
    """
    try:
        stored = json.loads((place / "meta.json").read_bytes())
        meta = stored["meta"]
        if stored["digest"] != _digest(json.dumps(meta).encode()):
            return None
        if {file.name: _digest(file.read_bytes()) for file in _small_files(place)} != meta["digests"]:
            return None
        images = np.load(place / "images.npy", mmap_mode="r", allow_pickle=False)
        if list(images.shape) != meta["shape"] or images.dtype != np.uint8:
            return None
        return ImageSet(
            images=images,
            labels=np.load(place / "labels.npy") if "labels.npy" in meta["digests"] else None,
            class_names=tuple(meta["class_names"]),
            keys=np.load(place / "keys.npy"),
            source=meta["source"],
            ids=tuple(json.loads((place / "ids.json").read_bytes())) if "ids.json" in meta["digests"] else None,
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None


def _publish(temporary: Path, place: Path) -> ImageSet | None:
    """Rename a finished entry to its place; where a whole one stands already, another process was faster: keep that."""
    for _ in range(3):
        try:
            temporary.rename(place)
        except OSError:
            found = _open_entry(place)
            if found is not None:
                return found
            if not place.exists():
                raise
            aside = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=place.parent))
            with contextlib.suppress(OSError):  # gone: another process moved it away first
                place.rename(aside / "damaged")
            shutil.rmtree(aside, ignore_errors=True)
        else:
            return _open_entry(place)
    return None


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(f"{_BUILDING}*"):
        with contextlib.suppress(OSError):
            newest = max(p.stat().st_mtime for p in (folder, *folder.iterdir()))
            if newest < time.time() - _STALE:
                shutil.rmtree(folder, ignore_errors=True)
