"""Who is held out: stratified splits that follow from the images' content alone, not from a seed, name or order."""

from collections.abc import Sequence

import numpy as np

from resfit.errors import DataError

# What people call splits, in any case: folders, files, and what a table's column says.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
TEST_SHARE = 0.1  # of a pool that brings no splits
_MIX = 0x9E3779B97F4A7C15  # any constant will do, as long as it stays: it decides who is held out


def hold_out(
    keys: np.ndarray, labels: np.ndarray, class_names: Sequence[str], share: float, source: str, fewest: int = 3
) -> np.ndarray:
    """Return which images are held out, bool (N,): of each class about `share` of its distinct images, at least one.

    Images of one class with the same key stay together. At least one distinct image a class stays on the other side.
    Raises DataError for a class with fewer than `fewest` distinct images.
    """
    ranks = scramble(keys)
    held = np.zeros(len(keys), bool)
    for label, name in enumerate(class_names):
        members = np.flatnonzero(labels == label)
        distinct = np.unique(ranks[members])  # sorted
        if len(distinct) < fewest:
            raise DataError(
                f"{source}: class {name!r} has {len(distinct)} distinct images, too few to hold some out. Add at least "
                f"{fewest - len(distinct)}."
            )
        count = min(max(1, int(len(distinct) * share + 0.5)), len(distinct) - 1)
        held[members] = ranks[members] <= distinct[count - 1]
    return held


def scramble(keys: np.ndarray) -> np.ndarray:
    """Return a one-to-one scrambling of the keys (the finaliser of splitmix64; Steele, Lea, Flood, 2014)."""
    x = keys.astype(np.uint64) + np.uint64(_MIX)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
