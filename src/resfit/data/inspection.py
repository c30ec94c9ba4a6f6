"""What a data set is, before anything is trained on it: `info` looks, `prepare` fills the cache; `checking` reads every file.

The test split is counted, hashed and decoded here like any other; nothing is scored on it.
"""

import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data.cache import cache_folder, find_cached
from resfit.data.decode import read_header
from resfit.data.images import ImageSet, PixelRule
from resfit.data.listing import Blob, Listing, Source, read_keys
from resfit.data.sources import Split, cache_key, choose, hold_out_test, outline, read_cached, recognise
from resfit.errors import ResourceError

EXAMPLES = 5  # sizes shown
_LOOKED_AT = 200  # images of a split whose size `info` reads, evenly spaced


def info(
    source: str | Path,
    image_size: int = 32,
    val_fraction: float = 0.1,
    resize: str = "squash",
    group_by: str | None = None,
) -> dict[str, Any]:
    """Return what is recognised of a source: reader, splits, sizes, fingerprints, place in the cache; decodes nothing.

    Where the cache is cold every file is read once, for the fingerprints. Raises DataError.
    """
    reader, opened = recognise(source)
    rule = PixelRule(image_size, resize)
    stored = (
        {part: find_cached(cache_key(opened, part, rule, group_by)) for part in _parts(opened)}
        if opened.signature
        else {}
    )
    warm = bool(stored) and None not in stored.values()
    parts = (
        {part: found for part, found in stored.items() if found} if warm else _outlines(opened, image_size, group_by)
    )
    sources: dict[Split, set[str]] = {
        "train": {"all", "train"},
        "val": {"all", "train", "val"},
        "test": {"all", "test"},
    }
    names = [name for name, wanted in sources.items() if wanted & set(opened.splits)]
    splits = {name: _describe(choose(opened, name, val_fraction, parts.__getitem__, group_by)) for name in names}
    looked = [image_sizes(opened.list_split(split)) for split in opened.splits]
    sizes = sum(looked, Counter[tuple[int, int]]())
    decoded = sum(len(part) for part in parts.values()) * 3 * image_size**2
    place = {"folder": str(cache_folder() / "images"), "used": opened.signature is not None, "warm": warm}
    return {
        "source": opened.name,
        "reader": reader,
        "layout": opened.layout,
        "brings": list(opened.splits),
        "splits": splits,
        "image_sizes": [{"height": h, "width": w, "images": n} for (h, w), n in sizes.most_common(EXAMPLES)],
        "looked_at": sizes.total(),
        "image_size": image_size,
        "cache": place | {"bytes": decoded if warm else 0},
        "memory_bytes": decoded,
    }


def prepare(
    source: str | Path, image_size: int = 32, resize: str = "squash", group_by: str | None = None
) -> dict[str, Any]:
    """Decode into the cache what is not there yet of all splits of a source; return images, seconds and place.

    Raises DataError, and ResourceError where the cache cannot be written. A source that is as fast to read again (digits)
    is not cached.
    """
    _, opened = recognise(source)
    rule, folder = PixelRule(image_size, resize), cache_folder() / "images"
    images = decoded = 0
    started = time.perf_counter()
    for part in _parts(opened) if opened.signature else ():
        warm = find_cached(cache_key(opened, part, rule, group_by))
        found = warm or read_cached(opened, part, rule, group_by)
        if warm is None and not isinstance(found.images, np.memmap):
            raise ResourceError(
                f"{folder}: the images could not be kept there. Set RESFIT_CACHE to a folder with room."
            )
        images += len(found)
        decoded += 0 if warm else len(found)
    seconds = time.perf_counter() - started
    return {
        "source": opened.name,
        "image_size": image_size,
        "images": images,
        "decoded": decoded,
        "seconds": seconds,
        "images_per_second": decoded / seconds if decoded else None,
        "folder": str(folder) if opened.signature else None,
    }


def _parts(opened: Source) -> tuple[str, ...]:
    """Return what the cache keeps apart of a source."""
    return ("trainval", "test") if "all" in opened.splits else opened.splits


def _outlines(opened: Source, size: int, group_by: str | None) -> dict[str, ImageSet]:
    """Return the parts of a source with keys, labels and black images: native splits, or a pool's test part and the rest."""
    wholes = {}
    for split in opened.splits:
        listing = opened.list_split(split)
        wholes[split] = outline(listing, read_keys(listing), opened.name, size)
    if "all" not in wholes:
        return wholes
    held = hold_out_test(wholes["all"], group_by)
    return {"trainval": wholes["all"].take(np.flatnonzero(~held)), "test": wholes["all"].take(np.flatnonzero(held))}


def _describe(split: ImageSet) -> dict[str, Any]:
    counts = np.bincount(np.asarray(split.labels), minlength=len(split.class_names)).tolist()
    classes = dict(zip(split.class_names, counts, strict=True))
    return {"images": len(split), "classes": classes, "fingerprint": split.fingerprint}


def image_sizes(listing: Listing) -> Counter[tuple[int, int]]:
    """Return how many of some evenly spaced images have which (height, width); an unreadable one has none."""
    some = range(0, listing.count, math.ceil(listing.count / _LOOKED_AT))
    return Counter(size for _, blob in listing.blobs(some) if (size := _size(blob)) is not None)


def _size(blob: Blob) -> tuple[int, int] | None:
    if isinstance(blob, np.ndarray):
        return blob.shape[0], blob.shape[1]
    try:
        _, height, width, _ = read_header(blob if isinstance(blob, bytes) else Path(blob).read_bytes())
        return height, width
    except (OSError, ValueError):  # what is wrong with a file is for `check` to say
        return None
