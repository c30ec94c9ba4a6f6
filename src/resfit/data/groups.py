"""Groups of images that must lie on one side of a split: one patient's, one video's, one burst's. Found in ids, by a regex.

Why it matters: images of one group are alike beyond their class, so that a network is scored on what it has seen (Kaufman,
Rosset, Perlich 2011, "Leakage in Data Mining: Formulation, Detection, and Avoidance"). Who is held out follows from content,
as everywhere; where each image is a group of its own it is whom `splits.hold_out` holds out.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from resfit.data.splits import scramble
from resfit.errors import DataError, UsageError


def find_groups(ids: Sequence[str] | None, group_by: str, source: str) -> list[str | None]:
    """Return the group of each image, None for one whose id does not match: it is a group of its own.

    A group is what the regex's first named group, else its first group, else the whole of it finds first in the id. Raises
    UsageError for what is no regex, DataError for images without ids and where no id matches.
    """
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(
            f"group_by: {group_by!r} is no regular expression: {error}. Write it as '(patient[0-9]+)'."
        ) from error
    if ids is None:
        raise DataError(f"{source}: group_by: its images have no ids to find groups in. Leave group_by out.")
    place = min(pattern.groupindex.values(), default=min(1, pattern.groups))
    matches = map(pattern.search, ids)
    groups = [match.group(place) if match else None for match in matches]
    if ids and not any(group is not None for group in groups):
        raise DataError(f"{source}: group_by: {group_by!r} matches no id, such as {ids[0]!r}. Mend the expression.")
    return groups


def number_groups(groups: Sequence[str | None]) -> np.ndarray:
    """Return groups as numbers, int64 (N,), each None as one of its own."""
    numbers: dict[str | int, int] = {}
    return np.array(
        [numbers.setdefault(i if name is None else name, len(numbers)) for i, name in enumerate(groups)], np.int64
    )


def shared_groups(by_split: Mapping[str, Sequence[str | None]]) -> dict[str, list[str]]:
    """Return {group: the splits it lies in} for those in more than one, sorted."""
    places: dict[str, list[str]] = {}
    for split, groups in by_split.items():
        for group in sorted({group for group in groups if group is not None}):
            places.setdefault(group, []).append(split)
    return {group: splits for group, splits in sorted(places.items()) if len(splits) > 1}


def check_groups(ids: Mapping[str, Sequence[str] | None], group_by: str, source: str) -> str:
    """Return a line for people on ids, by split, that are in no group, or ""; raises DataError for a group in two splits."""
    by_split = {name: find_groups(some, group_by, source) for name, some in ids.items()}
    for group, splits in shared_groups(by_split).items():
        raise DataError(
            f"{source}: group_by: group {group!r} lies in {' and '.join(splits)}. Move its images to one of them."
        )
    total = sum(map(len, by_split.values()))
    alone = sum(group is None for groups in by_split.values() for group in groups)
    return f"group_by: {alone:,} of {total:,} ids do not match; each is a group of its own" if alone else ""


def hold_out_groups(
    keys: np.ndarray, labels: np.ndarray, groups: np.ndarray, class_names: Sequence[str], share: float, source: str
) -> np.ndarray:
    """Return which images are held out, bool (N,): whole groups, int64 (N,), about `share` of each class's distinct images.

    Groups that have an image in common count as one. In the order of their content's hash each is taken that brings the
    classes' counts nearer to their share; then the one that disturbs least for each class that has none yet. Every class
    keeps an image on the other side. Raises DataError where that cannot be.
    """
    groups = _join(groups, keys)
    ranks = scramble(keys)
    _, first = np.unique(np.stack([ranks, labels.astype(np.uint64)]), axis=1, return_index=True)  # distinct images
    totals = np.bincount(labels[first], minlength=len(class_names))
    goals = [min(max(1, int(total * share + 0.5)), max(1, int(total) - 1)) for total in totals]
    sizes: dict[int, dict[int, int]] = defaultdict(dict)
    order: dict[int, int] = defaultdict(int)
    for i in first.tolist():
        group, label = int(groups[i]), int(labels[i])
        sizes[group][label] = sizes[group].get(label, 0) + 1
    _, one = np.unique(np.stack([ranks, groups.astype(np.uint64)]), axis=1, return_index=True)
    for i in one.tolist():
        order[int(groups[i])] = (order[int(groups[i])] + int(ranks[i])) % 2**64
    ranked = sorted(sizes, key=lambda group: order[group])
    held, left = [0] * len(class_names), [int(total) for total in totals]
    taken: set[int] = set()

    def cost(group: int) -> float:
        """What taking the group adds to the squared distance from the goals, each as a share of its own."""
        return sum(n * (2 * (held[c] - goals[c]) + n) / goals[c] ** 2 for c, n in sizes[group].items())

    def fits(group: int) -> bool:
        return group not in taken and all(left[c] > n for c, n in sizes[group].items())

    def take(group: int) -> None:
        taken.add(group)
        for c, n in sizes[group].items():
            held[c] += n
            left[c] -= n

    for group in ranked:
        if fits(group) and cost(group) < 0:
            take(group)
    for label, name in enumerate(class_names):
        if held[label]:
            continue
        able = [group for group in ranked if label in sizes[group] and fits(group)]
        if not able:
            raise DataError(
                f"{source}: group_by: class {name!r} lies in too few groups to hold one out. Add images of other groups, or "
                "a finer expression."
            )
        take(min(able, key=cost))
    return np.isin(groups, list(taken))


def _join(groups: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the groups, those that have an image in common as one."""
    _, images = np.unique(keys, return_inverse=True)
    _, joined = np.unique(groups, return_inverse=True)
    while True:
        before = joined
        for kind in (images, joined):
            lowest = np.full(kind.max(initial=0) + 1, len(groups))
            np.minimum.at(lowest, kind, joined)
            joined = lowest[kind]
        if (joined == before).all():
            return np.asarray(joined)
