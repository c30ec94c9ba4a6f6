"""The front door to image data: a source (a path or a name) and a split in, an `ImageSet` out.

How splits come about. What a source brings is used as it is. A source without val holds out `val_fraction` of its train
images. A source without any splits (class folders alone, images + labels, digits) is one pool: of each class 10% of the
distinct images are test, `val_fraction` of the whole are val, the rest is train. All of it follows from the images'
bytes (`splits.hold_out`), so it is the same on every machine, under any file names and at any image size. With `group_by`, a
regex, whole groups of images are held out (`groups.hold_out_groups`), and the names say what is a group.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resfit.data import arrays, competition, folder, parquet, tables
from resfit.data.cache import cached, in_memory
from resfit.data.groups import find_groups, hold_out_groups, number_groups
from resfit.data.images import ImageSet, PixelRule, join
from resfit.data.listing import Allocate, Listing, Source, read, read_keys
from resfit.data.splits import TEST_SHARE, hold_out
from resfit.errors import DataError, UsageError, nearest

Split = Literal["train", "val", "trainval", "test"]

# A reader has recognises(source: str) -> bool and open_source(source: str) -> listing.Source. Asked in this order.
SOURCES = {
    "cifar": "resfit.data.cifar",
    "digits": "resfit.data.digits",
    "npz": "resfit.data.arrays",
    "parquet": "resfit.data.parquet",
    "table": "resfit.data.tables",
    "folder": "resfit.data.folder",
}
NAMES = ("cifar10", "cifar100", "digits")
GROUP = "resfit.sources"


def load_split(
    source: str | Path | Source,
    split: Split,
    rule: PixelRule,
    val_fraction: float = 0.1,
    group_by: str | None = None,
) -> ImageSet:
    """Return one split of a source, decoded by `rule` and cached; see the head of this file for what each split is.

    trainval is train and val together, train first where it brings both. Reading any other split never decodes a
    test image. Raises DataError for a source that is not understood or does not bring the split.
    """
    return load_splits(source, (split,), rule, val_fraction, group_by)[0]


def load_splits(
    source: str | Path | Source,
    splits: Sequence[Split],
    rule: PixelRule,
    val_fraction: float = 0.1,
    group_by: str | None = None,
) -> list[ImageSet]:
    """Return several splits as `load_split` does each; the source is listed once, and what they share is opened once."""
    for split in splits:
        if split not in ("train", "val", "trainval", "test"):
            raise UsageError(f"split: {split!r} is not known. Use train, val, trainval or test.")
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction: {val_fraction} is not between 0 and 1. Use 0.1, say.")
    opened = open_source(source)
    read = cache(lambda part: read_cached(opened, part, rule, group_by))
    return [choose(opened, split, val_fraction, read, group_by) for split in splits]


def choose(
    opened: Source,
    split: Split,
    val_fraction: float,
    read: Callable[[str], ImageSet],
    group_by: str | None = None,
) -> ImageSet:
    """Return a split of a source whose parts (train, val, test; of a pool trainval, test) `read` gets."""
    if "all" in opened.splits:
        if split == "test":
            return read("test")
        return _without_or_with_val(read("trainval"), split, _share(val_fraction), 2, opened.name, group_by)
    if split == "test" or (split == "val" and "val" in opened.splits):
        return read(split)
    train = read("train")
    if "val" not in opened.splits:
        return _without_or_with_val(train, split, val_fraction, 3, opened.name, group_by)
    return train if split == "train" else join([train, read("val")], f"{opened.name} (trainval)")


def split_manifest(
    source: str | Path | Source, val_fraction: float = 0.1, group_by: str | None = None
) -> list[tuple[str, str, str]]:
    """Return (id, class, split) for every image of a source; images are hashed, none is decoded.

    The id is the path below the source, or the row number in its native split. Of a split that the source brings, only
    the list is read.
    """
    opened = open_source(source)
    rows: list[tuple[str, str, str]] = []
    for native in opened.splits:
        listing = opened.list_split(native)
        keys = np.zeros(listing.count, np.uint64) if _is_brought(opened, native) else read_keys(listing)
        names = assign(opened, native, outline(listing, keys, opened.name), val_fraction, group_by)
        ids = listing.ids or tuple(map(str, range(listing.count)))
        classes = (listing.class_names[label] for label in _labels(listing))
        rows += zip(ids, classes, map(str, names), strict=True)
    return rows


def assign(
    opened: Source, native: str, images: ImageSet, val_fraction: float = 0.1, group_by: str | None = None
) -> np.ndarray:
    """Return the split that each image of a native split is in, text (N,): its own, or held out of it. No pixel is read."""
    names = np.full(len(images), native, dtype=object)
    if _is_brought(opened, native):
        return names
    pooled, rest = native == "all", np.arange(len(images))
    if pooled:
        held = hold_out_test(images, group_by)
        names[held], rest = "test", np.flatnonzero(~held)
    share, fewest = (_share(val_fraction), 2) if pooled else (val_fraction, 3)
    names[rest] = np.where(_hold_out(images.take(rest), share, fewest, group_by), "val", "train")
    return names


def _is_brought(opened: Source, native: str) -> bool:
    """Return whether a native split stays whole: nothing is held out of it."""
    return native != "all" and (native != "train" or "val" in opened.splits)


def outline(listing: Listing, keys: np.ndarray, source: str, size: int = 1) -> ImageSet:
    """Return a listing with its keys, (N,), as images that take no memory: all black."""
    images = np.broadcast_to(np.uint8(0), (listing.count, 3, size, size))
    return ImageSet(images, _labels(listing), listing.class_names, keys, source, listing.ids)


def open_source(source: str | Path | Source) -> Source:
    """Return what the first reader that recognises `source` makes of it; raises DataError when none does."""
    return source if isinstance(source, Source) else recognise(source)[1]


def recognise(source: str | Path) -> tuple[str, Source]:
    """Return the name of the first reader that recognises `source`, and what it makes of it; see `open_source`."""
    text = str(source)
    try:
        if Path(text).is_dir():
            os.scandir(text).close()
    except OSError as error:
        raise DataError(f"{text}: cannot be read: {error.strerror}. Check its permissions.") from error
    for name, module in SOURCES.items():
        reader = import_module(module)
        if reader.recognises(text):
            return name, _checked(reader.open_source(text), module)
    names = set(NAMES)
    for package, reader in _outside_readers():
        if reader.recognises(text):
            return package, _checked(reader.open_source(text), package)
    if competition.recognises(text):
        raise DataError(f"{text}: a pickle without labels is for predict only. Give {folder.LAYOUTS}.")
    if not os.path.exists(text):
        hint = nearest(text, names) or nearest(Path(text).name, _beside(text))
        shown = f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"
        raise DataError(f"{text}: neither a path that exists nor a known name.{hint} Give a path, or {shown}.")
    raise DataError(
        f"{text}: not a layout that is understood. Give a folder, .tar or .zip with {folder.LAYOUTS}; {tables.LAYOUTS}; "
        f"{parquet.LAYOUTS}; CIFAR's own folder or archive; a .npz with {arrays.LAYOUTS}; or one of {', '.join(NAMES)}."
    )


def _beside(path: str) -> list[str]:
    """Return what else is in the folder that a path should be in."""
    try:
        return os.listdir(os.path.dirname(path) or ".")
    except OSError:
        return []


def _outside_readers() -> list[tuple[str, Any]]:
    """Load the readers that other packages bring, only now: no built-in one knew the source."""
    readers = []
    for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
        package = point.dist.name if point.dist is not None else point.value
        try:
            reader = point.load()
        except Exception as error:  # whatever an outside package raises at import, the user must learn which one
            raise DataError(
                f"{package}: its reader {point.name!r} cannot be loaded ({error}). Update or remove it."
            ) from error
        for name in ("recognises", "open_source"):
            if not callable(getattr(reader, name, None)):
                raise DataError(f"{package}: its reader {point.name!r} has no {name}(source). Update or remove it.")
        readers.append((package, reader))
    return readers


def _checked(opened: Any, maker: str) -> Source:
    if not isinstance(opened, Source) or not ({"all", "train"} & set(opened.splits) or opened.splits):
        raise DataError(f"{maker}: its open_source did not return a Source with splits. Update or remove it.")
    return opened


def _share(val_fraction: float) -> float:
    """Return val_fraction of the whole pool as a share of what is left once test is taken out."""
    return val_fraction / (1 - TEST_SHARE)


def hold_out_test(pool: ImageSet, group_by: str | None) -> np.ndarray:
    """Return which images of a pool are its test split, bool (N,)."""
    return _hold_out(pool, TEST_SHARE, 3, group_by)


def _hold_out(images: ImageSet, share: float, fewest: int, group_by: str | None) -> np.ndarray:
    assert images.labels is not None
    if group_by is None:
        return hold_out(images.keys, images.labels, images.class_names, share, images.source, fewest)
    groups = number_groups(find_groups(images.ids, group_by, images.source))
    return hold_out_groups(images.keys, images.labels, groups, images.class_names, share, images.source)


def _without_or_with_val(
    both: ImageSet, split: Split, share: float, fewest: int, source: str, group_by: str | None
) -> ImageSet:
    if split == "trainval":
        return both
    held = _hold_out(replace(both, source=source), share, fewest, group_by)
    part = both.take(np.flatnonzero(held if split == "val" else ~held))
    return replace(part, source=f"{source} ({split}, held out by content)")


def read_cached(opened: Source, part: str, rule: PixelRule, group_by: str | None = None) -> ImageSet:
    """Decode one native split, or of a pool its test part or all but that, or get it from the cache."""

    def build(allocate: Allocate) -> ImageSet:
        listing = opened.list_split("all" if pooled else part)
        index = np.arange(listing.count)
        if pooled:
            held = hold_out_test(outline(listing, read_keys(listing), opened.name), group_by)
            index = np.flatnonzero(held if part == "test" else ~held)
        return read(listing, index.tolist(), rule, allocate, f"{opened.name} ({part})")

    pooled = "all" in opened.splits
    if not pooled and part not in opened.splits:
        raise DataError(f"{opened.name}: brings no {part} split, only {', '.join(opened.splits)}. Add {part} to it.")
    if opened.signature is None:
        return build(in_memory)
    return cached(cache_key(opened, part, rule, group_by), build)


def cache_key(opened: Source, part: str, rule: PixelRule, group_by: str | None = None) -> dict[str, Any]:
    """Return what the cache knows a decoded part of a source by; only a pool's parts are other ones by groups."""
    key = {"source": opened.signature, "part": part, "rule": [rule.size, rule.resize, rule.filter]}
    return key | {"groups": group_by} if group_by is not None and "all" in opened.splits else key


def _labels(listing: Listing) -> np.ndarray:
    assert listing.labels is not None, "a Source lists labelled images"
    return listing.labels
