"""Verdicts on claims, from closed forms and from the records of runs. No torch.

The rules. A count is *reproduced* when it rounds or truncates to the printed figure at its digits, memory when it rounds to
it. A network that the report states and whose count differs is *contradicted by the report itself*; where the text may mean
several and not all have the figure, it is *undetermined*. An accuracy is judged on the original CIFAR-10, by the recipe as it
is, from three seeds on: *reproduced* when the claim (of a bound or range: any part) lies within the mean's 95% t-interval or
within 0.5 points of the mean. A loss: when a value that rounds to it lies within the interval. A comparison is decided, on
CIFAR-10 and on cifar10-jpeg, when the 95% interval of the difference (Welch 1947) excludes zero. A shortened study decides
only which trains faster: that does not wait for the end of training.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

from resfit.errors import UsageError
from resfit.evaluation.metrics import difference_interval, mean_interval
from resfit.models.families import cost
from resfit.models.networks import network
from resfit.published.claims import CONTRADICTED, SCALES, UNDETERMINED, Claim, Report, Side
from resfit.published.record import Result, normal, recipe_digest, study_text
from resfit.recipefile import load_recipe

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"
NOT_TESTED, OTHER_DATA = "not tested", "measured on other data"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, UNDECIDED, UNDETERMINED, CONTRADICTED, OTHER_DATA, NOT_TESTED)
TOLERANCE = 0.005  # half a point of accuracy
FEWEST = 3  # seeds for a verdict
SHORTENED = {"train.epochs", "data.image_size"}  # a study that changes other things only is of another question
FITTED = {"network.pool", "schedule.interval"}  # what a shortened study may have to change besides
COMPARABLE = ("cifar10", "cifar10-jpeg")


@dataclass(frozen=True)
class Judged:
    """A verdict, what was measured in words (None: nothing), and the same as plain data."""

    verdict: str
    measured: str | None = None
    measurement: dict[str, Any] | None = None


def judge(claim: Claim, report: Report, results: Sequence[Result]) -> Judged:
    """Return the verdict on a claim of a report, given the records of `read_results`."""
    if claim.kind == "statement":
        return _judge_statement(claim, report)
    if claim.kind in ("params", "budget"):
        return _judge_count(claim)
    if claim.kind == "memory":
        return _judge_memory(claim)
    found = _judge_comparison(claim, results) if claim.kind == "comparison" else _judge_figure(claim, results)
    first = next((other for other in report.claim if other.id == claim.depends), None)
    if first is not None and judge(first, report, results).verdict in (UNDETERMINED, CONTRADICTED):
        return Judged(UNDETERMINED, found.measured, found.measurement)
    return found


def prints_as(count: int, figure: Decimal, scale: Decimal) -> bool:
    """Return whether a count, in units of `scale`, rounds or truncates to a printed figure at the figure's digits."""
    exact = Decimal(count) / scale
    return figure in (exact.quantize(figure, ROUND_HALF_UP), exact.quantize(figure, ROUND_DOWN))


def _judge_count(claim: Claim) -> Judged:
    counts = [cost(network(name)).params for name in claim.networks]
    measured = " or ".join(f"{count:,}" for count in counts)
    if claim.instead is not None:
        measured += f"; the figure is that of {claim.instead} ({cost(network(claim.instead)).params:,})"
    data = {"params": counts if len(counts) > 1 else counts[0]}
    if all(_counts_as(claim, count) for count in counts):
        return Judged(REPRODUCED, measured, data)
    return Judged(UNDETERMINED if len(counts) > 1 else CONTRADICTED, measured, data)


def _counts_as(claim: Claim, count: int) -> bool:
    limit = claim.figure * SCALES[claim.unit]
    if claim.sense == "equal":
        return prints_as(count, claim.figure, SCALES[claim.unit])
    return count > limit if claim.sense == "above" else count <= limit


def _judge_memory(claim: Claim) -> Judged:
    assert claim.part is not None
    size = cost(network(claim.networks[0])).memory_mb[claim.part]
    verdict = REPRODUCED if Decimal(f"{size:.2f}") == claim.figure else CONTRADICTED
    return Judged(verdict, f"{size:.2f} MB", {"memory_mb": size})


def _judge_statement(claim: Claim, report: Report) -> Judged:
    if claim.verdict is not None:
        return Judged(claim.verdict)
    rows = [row for row in report.claim if row.kind == "test-accuracy"]
    if claim.check == "highest":
        higher = sorted((row for row in rows if row.figure > claim.figure), key=lambda row: row.figure, reverse=True)
        shown = " and ".join(f"{row.recipe} {row.figure}%" for row in higher)
        return Judged(CONTRADICTED, f"higher in its own table: {shown}") if higher else Judged(REPRODUCED)
    limit = claim.figure * SCALES[claim.unit]
    points = [(cost(network(row.recipe)).params, row.figure, row.recipe) for row in rows]
    inside = sorted(point for point in points if point[0] <= limit)
    against = [(a, b) for a in inside for b in inside if a[0] > b[0] and a[1] < b[1]]
    if not against:
        return Judged(REPRODUCED)
    near, far = max(against, key=lambda pair: (pair[0], pair[1][1]))
    sides = [f"{name} ({count:,}) {figure}%" for count, figure, name in (near, far)]
    return Judged(CONTRADICTED, f"closer and yet lower in its own table: {sides[0]}, {sides[1]}")


def _judge_figure(claim: Claim, results: Sequence[Result]) -> Judged:
    side = claim.side
    result = best(side, results)
    if result is None:
        return Judged(NOT_TESTED)
    scores = mean_interval(values(result, side) or [])
    measurement, text = scores | _facts(result), measured_text(side, result)
    if not is_own(side, result):
        return Judged(NOT_TESTED, text, measurement)
    if result["data"] != "cifar10":
        return Judged(OTHER_DATA, text, measurement)
    if scores["n"] < FEWEST:
        return Judged(UNDECIDED, text, measurement)
    low, high = _claimed(claim)
    gap = max(low - scores["mean"], scores["mean"] - high, 0.0)
    meets = scores["interval"][0] <= high and low <= scores["interval"][1]
    near = _is_accuracy(side) and gap <= TOLERANCE + 1e-9  # 1e-9: both are decimal fractions in binary
    return Judged(REPRODUCED if meets or near else NOT_REPRODUCED, text, measurement)


def _judge_comparison(claim: Claim, results: Sequence[Result]) -> Judged:
    left, right = claim.sides
    pairs = [
        (a, b) for a in candidates(left, results) for b in candidates(right, results) if _belong(left, a, right, b)
    ]
    if not pairs:
        return Judged(NOT_TESTED)
    a, b = max(pairs, key=lambda pair: min(_rank(left, pair[0]), _rank(right, pair[1])))
    found = _differ(values(a, left) or [], values(b, right) or [], paired=a is b)
    own = is_own(left, a) and is_own(right, b)
    text = f"{_difference(left, found)} (n {found['n'][0]} and {found['n'][1]}, {_circumstances(a)})"
    text = text if own else f"after {_study(a)}: {text}"
    measurement = found | _facts(a) | {"files": [a["file"], b["file"]]}
    if a["data"] not in COMPARABLE:
        return Judged(OTHER_DATA, text, measurement)
    decides = own or left.metric == "train_seconds"
    if min(found["n"]) < FEWEST or not decides:
        return Judged(UNDECIDED, text, measurement)
    low, high = found["interval"]
    if claim.sense == "no better":
        verdict = REPRODUCED if high < TOLERANCE else NOT_REPRODUCED if low > TOLERANCE else UNDECIDED
    else:
        verdict = REPRODUCED if low > 0 else NOT_REPRODUCED if high < 0 else UNDECIDED
    return Judged(verdict, text, measurement)


def _differ(left: list[float], right: list[float], paired: bool) -> dict[str, Any]:
    """Return the mean difference with its interval: Welch's, or of the differences where each seed has both sides."""
    if not paired:
        return difference_interval(left, right)
    found = mean_interval([a - b for a, b in zip(left, right, strict=True)])
    return {"difference": found["mean"], "interval": found["interval"], "n": [found["n"], found["n"]]}


def best(side: Side, results: Sequence[Result]) -> Result | None:
    """Return the result that says most of a side, or None."""
    return max(candidates(side, results), key=lambda result: _rank(side, result), default=None)


def measured_text(side: Side, result: Result) -> str:
    """Return what a result measured of a side, in words: mean, deviation, n and how it came about."""
    scores = mean_interval(values(result, side) or [])
    spread = f" ± {_amount(side, scores['std'])}" if scores["std"] is not None else ""
    short = "" if is_own(side, result) else f"{_study(result)}: "
    return f"{short}{_amount(side, scores['mean'])}{spread} (n {scores['n']}, {_circumstances(result)})"


def candidates(side: Side, results: Sequence[Result]) -> Iterator[Result]:
    """Yield the results that measure a side, by its recipe and settings or by a shortened study of them."""
    wanted = set(normal(side.settings))
    for result in results:
        more = {setting.partition("=")[0] for setting in set(result["settings"]) - wanted}
        mine = result["recipe"] == side.recipe and wanted <= set(result["settings"])
        if (
            mine
            and (not more or (more & SHORTENED and more <= SHORTENED | FITTED))
            and values(result, side) is not None
        ):
            yield result


def values(result: Result, side: Side) -> list[float] | None:
    """Return a metric of each seed of a result, or None where it was not measured (validation of a refit, say)."""
    found = [_value(run, side) for run in result["runs"]]
    return [value for value in found if value is not None] if found and None not in found else None


def is_own(side: Side, result: Result) -> bool:
    """Return whether a result is of the side's recipe as it stands, and not of a shortened or changed one."""
    if set(normal(side.settings)) != set(result["settings"]):
        return False
    return bool(_digest(side.recipe, tuple(side.settings)) == result["recipe_digest"])


@functools.cache
def _digest(name: str, settings: tuple[str, ...]) -> str | None:
    """Return the digest of a recipe as it is today, or None where it is gone."""
    try:
        return recipe_digest(load_recipe(name, settings))
    except UsageError:
        return None


def _value(run: dict[str, Any], side: Side) -> float | None:
    if side.epoch is None and side.metric in run:
        value: float | None = run[side.metric]
        return value
    curve: list[float] | None = run["curve"].get(side.metric)
    if not curve:
        return None
    if isinstance(side.epoch, int):
        return curve[side.epoch - 1] if side.epoch <= len(curve) else None
    return max(curve) if side.epoch == "best" else curve[-1]


def _rank(side: Side, result: Result) -> tuple[Any, ...]:
    """Order results by what they can say of a claim; the reports train on all images, so refit comes first where it can."""
    return (
        is_own(side, result),
        result["data"] == "cifar10",
        result["data"] == "cifar10-jpeg",
        result["n"] >= FEWEST,
        result["refit"],
        result["n"],
        result["image_size"],
        result["epochs"],
    )


def _belong(left: Side, a: Result, right: Side, b: Result) -> bool:
    """Return whether two results differ in the two sides and in nothing else."""
    extra = [set(r["settings"]) - set(normal(side.settings)) for side, r in ((left, a), (right, b))]
    same = all(a[key] == b[key] for key in ("data", "refit", "test_fingerprint", "image_size"))
    return same and extra[0] == extra[1] and (left.metric != "train_seconds" or a["device"] == b["device"])


def _claimed(claim: Claim) -> tuple[float, float]:
    """Return the values that a claim allows: a bound's, a range's, or for a loss those that round to it."""
    scale = SCALES[claim.unit]
    low, high = claim.figure, Decimal((claim.upto or claim.value or "").replace(",", ""))
    if claim.unit != "%":
        half = Decimal(1).scaleb(int(low.as_tuple().exponent)) / 2
        low, high = low - half, high + half
    ends = {"below": (Decimal(0), high), "above": (low, Decimal(100))}.get(claim.sense or "", (low, high))
    return float(ends[0] * scale), float(ends[1] * scale)


def _is_accuracy(side: Side) -> bool:
    return side.metric.endswith("accuracy")


def _amount(side: Side, value: float) -> str:
    if _is_accuracy(side):
        return f"{value:.2%}"
    return f"{value:,.1f} s" if side.metric == "train_seconds" else f"{value:.4f}"


def _difference(side: Side, found: dict[str, Any]) -> str:
    scale, unit = (100, " points") if _is_accuracy(side) else (1, " s" if side.metric == "train_seconds" else "")
    digits = 2 if _is_accuracy(side) else 1 if unit else 4
    bounds = " to ".join(f"{bound * scale:+.{digits}f}" for bound in found["interval"] or [])
    return f"{found['difference'] * scale:+.{digits}f}{unit}" + (f", 95% {bounds}" if bounds else "")


def _study(result: Result) -> str:
    return study_text(result["settings"]) or f"{result['epochs']} epochs at {result['image_size']} px"


def _circumstances(result: Result) -> str:
    return f"{result['data']}, {result['device']}, {result['train_images']:,} images, {result['weights']}"


def _facts(result: Result) -> dict[str, Any]:
    keys = ("data", "device", "study", "settings", "train_images", "weights", "tta_views", "commit", "file")
    return {key: result[key] for key in keys}
