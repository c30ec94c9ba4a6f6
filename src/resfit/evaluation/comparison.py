"""Is one run better than another? A paired test on the validation images that both predicted when they were trained. No torch.

McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika
12:153, in its exact form; Efron 1979, "Bootstrap methods: another look at the jackknife". The effects of images and of seeds
are joined by MOVER: Zou, Donner 2008, "Construction of confidence limits about effect measures", Stat. in Medicine 27:1693.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from resfit.errors import DataError, UsageError
from resfit.evaluation.metrics import difference_interval, mean_interval
from resfit.runs import Run, open_run, seed_runs

RESAMPLES = 20_000


@dataclass(frozen=True)
class Side:
    """One of two things compared: right bool (S, N), a row a seed, of images in the order of keys (N,) and labels (N,)."""

    path: str
    seeds: tuple[int, ...]
    right: np.ndarray
    keys: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]


def compare(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Return whether run A is better than run B by accuracy on the same validation images, with a 95% interval.

    A and B are run folders, or parents of `train --seeds`: the mean over seeds is then compared. Reads what the runs predicted
    when they ended; no image is read, and never the test split. `difference` is A minus B; `interval` covers what `covers`
    says; `p` is McNemar's exact one, for single runs; `better` is "a", "b" or None, `answer` the same as a sentence. Raises
    UsageError for what is no finished run with predictions, DataError where the images differ.
    """
    if Path(a).resolve() == Path(b).resolve():
        raise UsageError(f"{b}: is compared with itself. Name two runs.")
    left, right = (_load_side(path) for path in (a, b))
    _refuse_difference(left, right)
    means = {"a": float(left.right.mean()), "b": float(right.right.mean())}
    difference = left.right.mean(0) - right.right.mean(0)
    value: dict[str, Any] = {
        "a": left.path,
        "b": right.path,
        "split": "val",
        "n": len(left.keys),
        "seeds": {"a": list(left.seeds), "b": list(right.seeds)},
        "accuracy": means,
        "difference": float(difference.mean()),
    }
    of_images = image_interval(difference)
    if len(left.seeds) == len(right.seeds) == 1:
        only_a = int((left.right[0] & ~right.right[0]).sum())
        only_b = int((right.right[0] & ~left.right[0]).sum())
        value |= {"only_a_right": only_a, "only_b_right": only_b, "p": mcnemar(only_a, only_b)}
    of_seeds, pairing = seed_interval(left, right)
    if of_seeds is not None:
        of_images = join_intervals(value["difference"], of_images, of_seeds)
    value |= {"interval": list(of_images), "covers": f"images{' and ' + pairing if of_seeds else ''}"}
    low, high = of_images
    clear = value.get("p", 0.0) < 0.05
    value["better"] = "a" if low > 0 and clear else "b" if high < 0 and clear else None
    return value | {"answer": answer(value)}


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p of as uneven a split of the images that one run alone has right, were either as likely."""
    count, fewer = only_a + only_b, min(only_a, only_b)
    if count == 0:
        return 1.0
    terms = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(term - count * math.log(2)) for term in terms))


def image_interval(difference: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of the mean of (N,) differences over other images: the percentiles of a bootstrap.

    Where all are zero a bootstrap says nothing: the bounds are the share of images that would have been seen with 97.5%.
    """
    count = len(difference)
    values, numbers = np.unique(difference, return_counts=True)
    if len(values) == 1:
        unseen = 1 - 0.025 ** (1 / count)
        return max(-1.0, float(values[0]) - unseen), min(1.0, float(values[0]) + unseen)
    drawn = np.random.default_rng(0).multinomial(
        count, numbers / count, RESAMPLES
    )  # resampled images, counted by value
    low, high = np.quantile(drawn @ values / count, (0.025, 0.975))
    return float(low), float(high)


def seed_interval(a: Side, b: Side) -> tuple[tuple[float, float] | None, str]:
    """Return the 95% t-interval of the difference over other seeds on these images, and how seeds were paired.

    Paired by seed where both have the same two or more, else Welch's; None where a side has one seed only.
    """
    ours, theirs = a.right.mean(1), b.right.mean(1)
    if min(len(ours), len(theirs)) < 2:
        return None, ""
    if a.seeds == b.seeds:
        found, pairing = mean_interval(list(ours - theirs)), "seeds, paired"
    else:
        found, pairing = difference_interval(list(ours), list(theirs)), "seeds, not paired"
    low, high = found["interval"]
    return (low, high), pairing


def join_intervals(middle: float, first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Return the interval of a sum of two independent effects from the intervals of each, all about one middle (MOVER)."""
    low, high = (math.hypot(one - middle, two - middle) for one, two in zip(first, second, strict=True))
    return max(-1.0, middle - low), min(1.0, middle + high)


def answer(value: dict[str, Any]) -> str:
    """Return the result of a comparison as one sentence."""
    a, b, difference, (low, high) = value["a"], value["b"], value["difference"], value["interval"]
    of_a, of_b = (len(value["seeds"][side]) for side in "ab")
    points = f"{100 * difference:+.2f} points of accuracy (95% {100 * low:+.2f} to {100 * high:+.2f}"
    seeds = "1 seed each" if of_a == of_b == 1 else f"{of_a} and {of_b} seeds"
    p = f"; McNemar p {value['p']:.2g}" if "p" in value else ""
    detail = f"{points}; {value['n']:,} images of val, {seeds}{p})"
    if value["better"] is None:
        return f"It cannot be said whether {a} or {b} is better: their difference is {detail}."
    winner, loser = (a, b) if value["better"] == "a" else (b, a)
    return f"{winner} is better than {loser}: {a} minus {b} is {detail}."


def _load_side(path: str | Path) -> Side:
    runs = seed_runs(path) or [open_run(path)]
    if len(runs) > 1 and not Run(Path(path)).summary_file.exists():
        place = quote(str(path))
        raise UsageError(
            f"{path}: its seeds have not all finished. Give the same train command again with --out {place}."
        )
    loaded = [_load_run(run) for run in runs]
    for one in loaded[1:]:
        _refuse_difference(loaded[0], one)
    right, seeds = np.concatenate([one.right for one in loaded]), tuple(one.seeds[0] for one in loaded)
    first = loaded[0]
    return Side(str(path), seeds, right, first.keys, first.labels, first.class_names)


def _load_run(run: Run) -> Side:
    info, file = run.info, run.predictions_file
    if info["refit"]:
        raise UsageError(
            f"{run.folder}: was refit on train + val, so it has no predictions to compare. Name other runs."
        )
    _ = run.summary  # raises where it has not finished
    try:
        with np.load(file, allow_pickle=False) as arrays:
            probs, labels, keys = (np.asarray(arrays[name]) for name in ("probs", "labels", "keys"))
        order = np.lexsort((labels, keys))
        right = (probs.argmax(1) == labels)[None, order]
    except Exception as error:  # whatever a damaged file makes numpy say, the user needs its place
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{file}: cannot be read: {reason}. Is the run folder whole?") from error
    return Side(str(run.folder), (info["seed"],), right, keys[order], labels[order], tuple(info["class_names"]))


def _refuse_difference(a: Side, b: Side) -> None:
    """Raise DataError unless both predicted the same images with the same labels."""
    names = a.class_names == b.class_names
    if names and np.array_equal(a.keys, b.keys) and np.array_equal(a.labels, b.labels):
        return
    shared = len(np.intersect1d(a.keys, b.keys))
    what = f"{shared:,} are shared by its {len(b.keys):,} and the {len(a.keys):,} of {a.path}"
    what += "" if names else ", and the classes differ"
    raise DataError(f"{b.path}: its validation images or labels are others: {what}. Compare runs of one split.")
