"""`data check`: every image of a source is read and decoded once, and what is wrong is said, with its place.

The test split is decoded and hashed like any other; nothing is scored on it.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data import oddities
from resfit.data.cache import in_memory
from resfit.data.duplicates import NEAR, SIDE, find_duplicates, find_duplicates_within
from resfit.data.groups import find_groups, shared_groups
from resfit.data.images import PixelRule
from resfit.data.listing import Listing, Source, read_each
from resfit.data.problems import (
    Groups,
    Seen,
    class_names,
    class_sizes,
    leaking_groups,
    near_duplicates,
    odd_images,
    refused,
    repeated,
    unreadable,
)
from resfit.data.rows import take_rows
from resfit.data.sources import assign, open_source, outline
from resfit.errors import DataError, ResourceError

MANY = 10_000  # images from which on the search for near-duplicates takes long enough to be announced
SIDES = (1, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
SAMPLES = 3  # of each class
ASPECTS = (0, 0.25, 1 / 3, 0.5, 2 / 3, 0.75, 0.9, 1.1, 4 / 3, 1.5, 2, 3, 4)


def check(
    source: str | Path, near: bool = True, group_by: str | None = None, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Read and decode every image of a source once and return what is wrong: `problems`, and `ok` where none is fatal.

    A problem is {"kind", "count", "examples" (at most five, text), "places" ([split, row] of each image of each example),
    "fatal"}. `near` looks for near-duplicates too, in a time that grows with the square of the images; `group_by` (see
    `groups.find_groups`) for groups in more than one split. `say` is told what takes long. docs/design.md has the
    rest of the result. Raises DataError for what cannot be listed at all, and for ids without groups; UsageError.
    """
    opened = open_source(source)
    listings = {split: opened.list_split(split) for split in opened.splits}
    classes = next(iter(listings.values())).class_names
    groups = _groups(opened, listings, group_by) if group_by is not None else None
    seen, failures = _read(listings, near)
    problems = [unreadable(failures), *class_sizes(listings, classes), *repeated(seen, classes)]
    if groups is not None:
        problems.append(leaking_groups(groups))
    places, refusal = _assign(opened, listings, seen, group_by)
    found: dict[str, Any] | None = None
    if near:
        pairs, found = _near(seen, say)
        problems += near_duplicates(seen, pairs, places, classes)
    problems += [*odd_images(seen), *class_names(classes)]
    problems = [problem for problem in problems if problem["count"]]
    if refusal and not any(problem["fatal"] for problem in problems):
        problems.append(refused(refusal))
    return {
        "source": opened.name,
        "images": sum(listing.count for listing in listings.values()),
        "classes": len(classes),
        "ok": not any(problem["fatal"] for problem in problems),
        "problems": sorted(problems, key=lambda problem: not problem["fatal"]),
        "splits": _counts(seen, places, classes),
        "brings": list(opened.splits),
        "histograms": {
            "shorter_side": oddities.histogram(seen.shapes.min(1, initial=2**31), SIDES),
            "aspect": oddities.histogram(seen.shapes[:, 1] / np.maximum(seen.shapes[:, 0], 1), ASPECTS),
        },
        "near": found,
        "samples": _samples(seen, places, classes),
        "groups": None if groups is None else _groups_said(group_by, groups),
    }


def _read(listings: dict[str, Listing], keep: bool) -> tuple[Seen, dict[tuple[str, int], str]]:
    """Return what can be decoded, its pixels where they are to be kept, and what is wrong with the rest by split and row."""
    total = sum(listing.count for listing in listings.values())
    shapes = np.zeros((total, 2), np.int64)
    try:
        small = in_memory((total if keep else 0, 3, SIDE, SIDE))
    except ResourceError as error:
        raise ResourceError(
            f"memory: {total:,} images are too many for the search for near-duplicates. Use --no-near."
        ) from error
    notes: list[list[oddities.Note]] = [[] for _ in range(total)]
    failures: dict[tuple[str, int], str] = {}
    keys, start = [], 0
    for split, listing in listings.items():

        def look(
            i: int, data: bytes | np.ndarray, pixels: np.ndarray, first: int = start, of: Listing = listing
        ) -> None:
            if keep:
                small[first + i] = pixels
            shapes[first + i, 0], shapes[first + i, 1], notes[first + i] = oddities.look(data, of.name(i), pixels)

        found, failed = read_each(listing, PixelRule(SIDE), look)
        failures |= {(split, i): failed[i] for i in sorted(failed)}
        keys.append(found)
        start += listing.count
    splits = np.concatenate([np.full(listing.count, split, object) for split, listing in listings.items()])
    rows = np.concatenate([np.arange(listing.count) for listing in listings.values()])
    labels = np.concatenate([np.asarray(listing.labels) for listing in listings.values()])
    names = [
        f"{split}: image {i}" if listing.ids is None else listing.ids[i]
        for split, listing in listings.items()
        for i in range(listing.count)
    ]
    good = np.array([i for i in range(total) if (splits[i], int(rows[i])) not in failures], np.int64)
    for i, more in zip(good, oddities.odd_shapes(shapes[good]), strict=True):
        notes[i] += more
    seen = Seen(
        splits=splits[good],
        rows=rows[good],
        keys=np.concatenate(keys)[good],
        labels=labels[good],
        names=[names[i] for i in good],
        small=small if len(good) == total or not keep else small[good],
        shapes=shapes[good],
        notes=[notes[i] for i in good],
    )
    return seen, failures


def _near(seen: Seen, say: Callable[[str], None]) -> tuple[list[tuple[int, int, float]], dict[str, Any]]:
    """Return pairs of images that are nearly the same, the closest first, each image with its closest of each split before."""
    _, distinct = np.unique(np.stack([seen.keys, _codes(seen.splits)]), axis=1, return_index=True)
    parts = [np.sort(distinct[seen.splits[distinct] == split]) for split in dict.fromkeys(seen.splits.tolist())]
    if len(distinct) >= MANY:
        say(f"looking for near-duplicates among {len(distinct):,} images; --no-near leaves that out")
    started, pairs = time.perf_counter(), []
    for number, part in enumerate(parts):
        images = take_rows(seen.small, part)
        for other in parts[: number + 1]:
            if other is part:
                found = find_duplicates_within(images)
            else:
                found = find_duplicates(images, take_rows(seen.small, other))
            for query, reference, distance in zip(found.queries, found.references, found.distances, strict=True):
                i, j = int(part[query]), int(other[reference])
                if seen.keys[i] != seen.keys[j]:  # else it is the same file, and said to be
                    pairs.append((j, i, float(distance)))
    seconds = time.perf_counter() - started
    said = {"images": len(distinct), "pairs": len(pairs), "bound": NEAR, "seconds": round(seconds, 1)}
    said["many"] = len(pairs) > len(distinct) / 5
    return sorted(pairs, key=lambda pair: pair[2]), said


def _codes(splits: np.ndarray) -> np.ndarray:
    return np.unique(splits.astype(str), return_inverse=True)[1].astype(np.uint64)


def _groups(opened: Source, listings: dict[str, Listing], group_by: str) -> Groups:
    """Return the groups of all ids, listed but not read."""
    if any(listing.ids is None for listing in listings.values()):
        find_groups(None, group_by, opened.name)
    every = find_groups([i for listing in listings.values() for i in listing.ids or ()], group_by, opened.name)
    ends = np.cumsum([listing.count for listing in listings.values()]).tolist()
    by_split = {
        split: every[end - listing.count : end] for (split, listing), end in zip(listings.items(), ends, strict=True)
    }
    return Groups(by_split, shared_groups(by_split))


def _groups_said(group_by: str | None, groups: Groups) -> dict[str, Any]:
    every = [group for some in groups.by_split.values() for group in some]
    named = {group for group in every if group is not None}
    return {"group_by": group_by, "groups": len(named), "ungrouped": every.count(None), "shared": len(groups.shared)}


def _assign(
    opened: Source, listings: dict[str, Listing], seen: Seen, group_by: str | None
) -> tuple[np.ndarray, str | None]:
    """Return the split that each image would be in, text (N,), and what training says where splits cannot be made."""
    if not {"all", "train"} & listings.keys():
        return seen.splits, f"brings no train split, only {', '.join(listings)}"
    places = []
    try:
        for split, listing in listings.items():
            mine = np.flatnonzero(seen.splits == split)
            keys = np.zeros(listing.count, np.uint64)
            keys[seen.rows[mine]] = seen.keys[mine]
            images = outline(listing, keys, opened.name).take(seen.rows[mine])
            places.append(assign(opened, split, images, group_by=group_by))
    except DataError as error:
        return seen.splits, str(error).removeprefix(f"{opened.name}: ")
    return np.concatenate(places), None


def _samples(seen: Seen, places: np.ndarray, classes: Sequence[str]) -> dict[str, list[list[Any]]]:
    """Return [split, row] of the images of each class of train with the smallest keys, to look at."""
    order = np.argsort(seen.keys, kind="stable")
    order = order[np.isin(places[order], ("train", "all"))]
    return {
        name: [[str(seen.splits[i]), int(seen.rows[i])] for i in order[seen.labels[order] == label][:SAMPLES]]
        for label, name in enumerate(classes)
    }


def _counts(seen: Seen, places: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return images and images of each class by the split that they would be in."""
    said = {}
    for split in ("train", "val", "test", "all"):
        labels = seen.labels[places == split]
        if len(labels):
            counts = np.bincount(labels, minlength=len(classes)).tolist()
            said[split] = {"images": len(labels), "classes": dict(zip(classes, counts, strict=True))}
    return said
