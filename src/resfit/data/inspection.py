"""What a data set is, before anything is trained on it: `info` looks, `prepare` fills the cache, `check` reads every file.

The test split is counted, hashed and decoded here like any other; nothing is scored on it.
"""

import io
import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resfit.data.cache import cache_folder, find_cached
from resfit.data.formats import FORMATS
from resfit.data.images import ImageSet, PixelRule
from resfit.data.listing import Blob, Listing, Source, read_each, read_keys
from resfit.data.sources import Split, cache_key, choose, read_cached, recognise
from resfit.data.splits import TEST_SHARE, hold_out
from resfit.errors import DataError, ResourceError

EXAMPLES = 5  # of one problem
VAL_SHARE = 0.1  # as recipes have it by default
FEWEST = 10  # images of a class; with fewer its accuracy says nothing
_LOOKED_AT = 200  # images of a split whose size `info` reads, evenly spaced


def info(source: str | Path, image_size: int = 32, val_fraction: float = 0.1, resize: str = "squash") -> dict[str, Any]:
    """Return what is recognised of a source: reader, splits, sizes, fingerprints, place in the cache; decodes nothing.

    Where the cache is cold every file is read once, for the fingerprints. Raises DataError.
    """
    reader, opened = recognise(source)
    rule = PixelRule(image_size, resize)
    stored = {part: find_cached(cache_key(opened, part, rule)) for part in _parts(opened)} if opened.signature else {}
    warm = bool(stored) and None not in stored.values()
    parts = {part: found for part, found in stored.items() if found} if warm else _outlines(opened, image_size)
    sources: dict[Split, set[str]] = {
        "train": {"all", "train"},
        "val": {"all", "train", "val"},
        "test": {"all", "test"},
    }
    names = [name for name, wanted in sources.items() if wanted & set(opened.splits)]
    splits = {name: _describe(choose(opened, name, val_fraction, parts.__getitem__)) for name in names}
    looked = [_sizes(opened.list_split(split)) for split in opened.splits]
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


def prepare(source: str | Path, image_size: int = 32, resize: str = "squash") -> dict[str, Any]:
    """Decode into the cache what is not there yet of all splits of a source; return images, seconds and place.

    Raises DataError, and ResourceError where the cache cannot be written. A source that is as fast to read again (digits)
    is not cached.
    """
    _, opened = recognise(source)
    rule, folder = PixelRule(image_size, resize), cache_folder() / "images"
    images = decoded = 0
    started = time.perf_counter()
    for part in _parts(opened) if opened.signature else ():
        warm = find_cached(cache_key(opened, part, rule))
        found = warm or read_cached(opened, part, rule)
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


def check(source: str | Path) -> dict[str, Any]:
    """Read and decode every image of a source once and return what is wrong: `problems`, and `ok` where none is fatal.

    A problem is {"kind", "count", "examples" (at most five), "fatal"}; fatal is what makes training or its score wrong.
    Raises DataError for what cannot be listed at all.
    """
    _, opened = recognise(source)
    listings = {split: opened.list_split(split) for split in opened.splits}
    names: list[str] = []
    unreadable: list[str] = []
    keys, labels, splits = [], [], []
    wholes = {}
    for split, listing in listings.items():
        found, failures = read_each(listing, PixelRule(32))
        assert listing.labels is not None, "a Source lists labelled images"
        good = np.setdiff1d(np.arange(listing.count), np.fromiter(failures, np.int64))
        unreadable += [failures[i] for i in sorted(failures)]
        keys.append(found[good])
        labels.append(listing.labels[good])
        splits.append(np.full(len(good), split))
        wholes[split] = _outline(opened, listing, keys[-1], labels[-1], 1)
        names += [f"{split}: image {i}" if listing.ids is None else listing.ids[i] for i in good]
    classes = next(iter(listings.values())).class_names
    problems = [_problem("unreadable", unreadable, fatal=True)]
    if len(classes) < 2:
        problems.append(_problem("one class", list(classes), fatal=True))
    problems += _repeated(np.concatenate(keys), np.concatenate(labels), np.concatenate(splits), names, classes)
    problems += _odd_classes(listings, classes)
    problems = [problem for problem in problems if problem["count"]]
    total = sum(listing.count for listing in listings.values())
    if not any(problem["fatal"] for problem in problems):
        problems += [_problem("training refuses", [reason], fatal=True) for reason in _refusals(opened, wholes)]
    ok = not any(problem["fatal"] for problem in problems)
    return {"source": opened.name, "images": total, "classes": len(classes), "ok": ok, "problems": problems}


def _problem(kind: str, found: Sequence[str], fatal: bool = False) -> dict[str, Any]:
    return {"kind": kind, "count": len(found), "examples": list(found[:EXAMPLES]), "fatal": fatal}


def _repeated(
    keys: np.ndarray, labels: np.ndarray, splits: np.ndarray, names: Sequence[str], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the problems of images that come more than once, byte for byte: one count an image that does."""
    order = np.argsort(keys, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    within: list[str] = []
    twofold: list[str] = []
    across: dict[str, list[str]] = {"train and test": [], "train and val": [], "val and test": []}
    for group in (g for g in groups if len(g) > 1):
        shown = " = ".join(names[i] for i in group[:3]) + (f" and {len(group) - 3} more" if len(group) > 3 else "")
        places = set(splits[group].tolist())
        if len(places) < len(group):
            within.append(shown)
        for pair, found in across.items():
            if places.issuperset(pair.split(" and ")):
                found.append(shown)
        several = sorted(set(labels[group].tolist()))
        if len(several) > 1:
            twofold.append(f"{shown} ({', '.join(classes[label] for label in several)})")
    problems = [_problem(f"same image in {pair}", found, pair == "train and test") for pair, found in across.items()]
    return [*problems, _problem("same image under two labels", twofold), _problem("same image within a split", within)]


def _odd_classes(listings: dict[str, Listing], classes: Sequence[str]) -> list[dict[str, Any]]:
    few = []
    for split, listing in listings.items():
        counts = np.bincount(np.asarray(listing.labels), minlength=len(classes))
        few += [f"{split}: {name} has {n}" for name, n in zip(classes, counts, strict=True) if n < FEWEST]
    spelt = Counter(name.casefold() for name in classes)
    alike = [name for name in classes if spelt[name.casefold()] > 1]
    return [_problem(f"class of fewer than {FEWEST} images", few), _problem("class names that differ by case", alike)]


def _parts(opened: Source) -> tuple[str, ...]:
    """Return what the cache keeps apart of a source."""
    return ("trainval", "test") if "all" in opened.splits else opened.splits


def _outlines(opened: Source, size: int) -> dict[str, ImageSet]:
    """Return the parts of a source with keys and labels, and images that take no memory: all black."""
    listings = {split: opened.list_split(split) for split in opened.splits}
    return _halves(
        {
            split: _outline(opened, listing, read_keys(listing), np.asarray(listing.labels), size)
            for split, listing in listings.items()
        }
    )


def _outline(opened: Source, listing: Listing, keys: np.ndarray, labels: np.ndarray, size: int) -> ImageSet:
    images = np.broadcast_to(np.uint8(0), (len(keys), 3, size, size))
    return ImageSet(images, labels, listing.class_names, keys, opened.name)


def _halves(wholes: dict[str, ImageSet]) -> dict[str, ImageSet]:
    """Return native splits as they are, a pool as its test part and the rest."""
    if "all" not in wholes:
        return wholes
    pool = wholes["all"]
    assert pool.labels is not None
    held = hold_out(pool.keys, pool.labels, pool.class_names, TEST_SHARE, pool.source)
    return {"trainval": pool.take(np.flatnonzero(~held)), "test": pool.take(np.flatnonzero(held))}


def _refusals(opened: Source, wholes: dict[str, ImageSet]) -> list[str]:
    """Return what training says of splits that cannot be made."""
    if not {"all", "train"} & set(wholes):
        return [f"brings no train split, only {', '.join(wholes)}"]
    try:
        parts = _halves(wholes)
        needed: tuple[Split, ...] = ("train", "val")
        for name in needed:
            choose(opened, name, VAL_SHARE, parts.__getitem__)
    except DataError as error:
        return [str(error).removeprefix(f"{opened.name}: ")]
    return []


def _describe(split: ImageSet) -> dict[str, Any]:
    counts = np.bincount(np.asarray(split.labels), minlength=len(split.class_names)).tolist()
    classes = dict(zip(split.class_names, counts, strict=True))
    return {"images": len(split), "classes": classes, "fingerprint": split.fingerprint}


def _sizes(listing: Listing) -> Counter[tuple[int, int]]:
    """Return how many of some evenly spaced images have which (height, width); an unreadable one has none."""
    some = range(0, listing.count, math.ceil(listing.count / _LOOKED_AT))
    return Counter(size for _, blob in listing.blobs(some) if (size := _size(blob)) is not None)


def _size(blob: Blob) -> tuple[int, int] | None:
    if isinstance(blob, np.ndarray):
        return blob.shape[0], blob.shape[1]
    try:
        with Image.open(io.BytesIO(blob) if isinstance(blob, bytes) else blob, formats=FORMATS) as image:
            return image.height, image.width
    except Exception:  # whatever Pillow says of a damaged file is for `check` to say
        return None
