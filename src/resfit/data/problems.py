"""The problems that `checking` finds in the images it has seen: {"kind", "count", "examples", "places", "fatal"} each.

Fatal is what makes training or its score wrong: an image that cannot be decoded, a class without a train image, an image of
train in test, a group in two splits, splits that cannot be made. All else is to be looked at.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resfit.data import oddities
from resfit.data.listing import Listing
from resfit.data.spelling import alike

EXAMPLES = 5  # of one problem
FEWEST = 10  # images of a class; with fewer its accuracy says nothing
UNEQUAL = 5  # more than so many times the images in the largest class of train as in the smallest
PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))

Found = tuple[str, Sequence[int]]  # what is said of one example, and its images, rows of Seen
Problem = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """The images that could be decoded, of all native splits end to end.

    splits: text (N,), the native split; rows: int64 (N,), the row there. keys, labels, ids (None: arrays) as of a listing.
    small: uint8 (N, 3, 32, 32), or (0, ...). shapes: int64 (N, 2), height and width. notes: what is odd about each.
    """

    splits: np.ndarray
    rows: np.ndarray
    keys: np.ndarray
    labels: np.ndarray
    names: Sequence[str]
    small: np.ndarray
    shapes: np.ndarray
    notes: Sequence[list[oddities.Note]]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)


@dataclass(frozen=True)
class Groups:
    """The group of each image of each native split, None for those without, and how ids and splits are called."""

    by_split: dict[str, list[str | None]]
    shared: dict[str, list[str]]


def _problem(
    kind: str, found: Sequence[Found], fatal: bool = False, seen: Seen | None = None, places: Iterable[Any] = ()
) -> Problem:
    shown = found[:EXAMPLES]
    if seen is not None:
        places = [[[str(seen.splits[i]), int(seen.rows[i])] for i in rows] for _, rows in shown]
    return {
        "kind": kind,
        "count": len(found),
        "examples": [text for text, _ in shown],
        "places": list(places) or [[] for _ in shown],
        "fatal": fatal,
    }


def refused(reason: str) -> Problem:
    """Return the problem that training will not begin, for a reason that no other problem has said."""
    return _problem("training refuses", [(reason, ())], fatal=True)


def unreadable(failures: dict[tuple[str, int], str]) -> Problem:
    """Return the problem of images that cannot be decoded, each by split and row with what is wrong."""
    places = [[[split, row]] for split, row in itertools.islice(failures, EXAMPLES)]
    return _problem("unreadable", [(text, ()) for text in failures.values()], fatal=True, places=places)


def repeated(seen: Seen, classes: Sequence[str]) -> list[Problem]:
    """Return the problems of images that come more than once, byte for byte: one count an image that does."""
    order = np.argsort(seen.keys, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(seen.keys[order])) + 1)
    within: list[Found] = []
    twofold: list[Found] = []
    across: dict[tuple[str, str], list[Found]] = {pair: [] for pair in PAIRS}
    for group in (g for g in groups if len(g) > 1):
        shown = " = ".join(seen.names[i] for i in group[:3]) + (f" and {len(group) - 3} more" if len(group) > 3 else "")
        first = {split: int(i) for i in group[::-1] for split in [seen.splits[i]]}  # of each split
        if len(first) < len(group):
            within.append((shown, group[:3].tolist()))
        for pair, found in across.items():
            if first.keys() >= set(pair):
                found.append((shown, [first[split] for split in pair]))
        several = {int(seen.labels[i]): int(i) for i in group[::-1]}
        if len(several) > 1:
            twofold.append(
                (f"{shown} ({', '.join(classes[label] for label in sorted(several))})", list(several.values()))
            )
    problems = [
        _problem(f"same image in {' and '.join(pair)}", found, pair == ("train", "test"), seen)
        for pair, found in across.items()
    ]
    return [
        *problems,
        _problem("same image under two labels", twofold, seen=seen),
        _problem("same image within a split", within, seen=seen),
    ]


def near_duplicates(
    seen: Seen, pairs: Sequence[tuple[int, int, float]], places: np.ndarray, classes: Sequence[str]
) -> list[Problem]:
    """Return the problems of near-duplicates by the splits that they are in, or would be held out into."""
    across: dict[tuple[str, str], list[Found]] = {pair: [] for pair in PAIRS}
    within: list[Found] = []
    twofold: list[Found] = []

    def name(i: int) -> str:
        held = places[i] not in (seen.splits[i], "train", "all")
        return f"{seen.names[i]} (held out: {places[i]})" if held else seen.names[i]

    for i, j, distance in pairs:
        close = f"distance {distance:.3f}" if distance else "the same pixels"
        shown = f"{name(i)} ~ {name(j)} ({close})"
        pair = next((pair for pair in PAIRS if {places[i], places[j]} == set(pair)), None)
        (within if pair is None else across[pair]).append((shown, (i, j)))
        if seen.labels[i] != seen.labels[j]:
            twofold.append((f"{shown} ({classes[seen.labels[i]]}, {classes[seen.labels[j]]})", (i, j)))
    problems = [_problem(f"near-duplicate in {' and '.join(pair)}", found, seen=seen) for pair, found in across.items()]
    problems.append(_problem("near-duplicate under two labels", twofold, seen=seen))
    return [*problems, _problem("near-duplicate within a split", within, seen=seen)]


def class_sizes(listings: dict[str, Listing], classes: Sequence[str]) -> list[Problem]:
    """Return the problems of classes that have too few images, or one beside another."""
    few: list[Found] = []
    missing: list[Found] = []
    unequal: list[Found] = []
    for split, listing in listings.items():
        counts = np.bincount(np.asarray(listing.labels), minlength=len(classes))
        few += [(f"{split}: {name} has {n}", ()) for name, n in zip(classes, counts, strict=True) if n < FEWEST]
        if split not in ("train", "all") or not len(counts):
            continue
        missing += [(f"{split}: {name}", ()) for name, n in zip(classes, counts, strict=True) if n == 0]
        most, least = int(counts.argmax()), int(counts.argmin())
        if 0 < counts[least] * UNEQUAL < counts[most]:
            ratio = f"{counts[most] / counts[least]:.1f} times"
            said = f"{split}: {classes[most]} has {counts[most]:,}, {classes[least]} {counts[least]:,}: {ratio}"
            unequal.append((said, ()))
    alone: list[Found] = [(name, ()) for name in classes] if len(classes) < 2 else []
    return [
        _problem("one class", alone, fatal=True),
        _problem("class without a train image", missing, fatal=True),
        _problem(f"class of fewer than {FEWEST} images", few),
        _problem("classes of unequal size", unequal),
    ]


def odd_images(seen: Seen) -> list[Problem]:
    """Return the problems of single images that can be decoded and look odd."""
    found: dict[str, list[Found]] = {kind: [] for kind in oddities.KINDS}
    for i, notes in enumerate(seen.notes):
        for kind, said in notes:
            found[kind].append((f"{seen.names[i]} ({said})" if said else seen.names[i], (i,)))
    return [_problem(kind, some, seen=seen) for kind, some in found.items()]


def class_names(classes: Sequence[str]) -> list[Problem]:
    """Return the problems of classes that may be one class spelt twice."""
    found: dict[str, list[Found]] = {"case": [], "Unicode form": [], "spelling": []}
    for i, j, kind in alike(classes):
        found[kind].append((f"{classes[i]} = {classes[j]}", ()))
    return [_problem(f"class names that differ by {kind}", some) for kind, some in found.items()]


def leaking_groups(groups: Groups) -> Problem:
    """Return the problem of groups of which a network would be scored on what it has seen."""
    found: list[Found] = []
    places: list[Any] = []
    for group, splits in groups.shared.items():
        counts = [f"{groups.by_split[split].count(group):,} in {split}" for split in splits]
        found.append((f"{group} ({', '.join(counts)})", ()))
        if len(places) < EXAMPLES:
            places.append([[split, groups.by_split[split].index(group)] for split in splits])
    return _problem("group in more than one split", found, fatal=True, places=places)
