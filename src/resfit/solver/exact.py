"""`design`: the networks that fill a budget, found by an exact search of a finite list of ranges. No torch, none is built.

Every count is a sum (the peak a maximum) over blocks, so that tables of blocks replace networks: all stages but the last are
enumerated, those over the budget dropped at once, and the last stage is the widest that what is left allows, since params,
macs, latency, peak and expected accuracy (expected.py) grow with it.
"""

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from resfit.budget import Budget, check_budget
from resfit.errors import GateError, UsageError
from resfit.models.cost import Block, Cost, head_part, stem_part
from resfit.models.families import cost, parts
from resfit.models.spec import ModelSpec, format_spec
from resfit.solver.expected import Expected, Times, load_expected
from resfit.solver.ranges import Ranges, Shapes

SUMS = PARAMS, MACS, TIME = range(3)  # the rows of every table here that are sums over blocks
PEAK = 3  # and the one that is a maximum
STEP = 2**0.5  # the least ratio of the macs of two networks that are shown one after the other
NO_LIMIT = 2**62


@dataclass(frozen=True)
class Designed:
    """A network of `design`, its score by the rule of expected accuracy, the macs under which it ranks highest (None: any)."""

    spec: ModelSpec
    cost: Cost
    score: float
    under_macs: int | None


def design(
    budget: Budget | None = None,
    ranges: Ranges | None = None,
    top: int = 10,
    expected: Expected | None = None,
    latency: float | None = None,
) -> list[Designed]:
    """Return up to `top` networks of the ranges within the budget, highest expected accuracy first.

    The first ranks highest of all, each other one highest of those with at most 1/sqrt(2) of the macs of the one before: a
    front of macs and expected accuracy. Of equals the one with fewer macs, then fewer params, stands. latency: seconds an image
    alone that the rule's model of it may reach. Raises UsageError for ranges that hold no network, GateError where none keeps
    the budget, with the limit that binds.
    """
    budget, ranges, expected = budget or Budget(), ranges or Ranges(), expected or load_expected()
    cases = itertools.product(ranges.families, ranges.kernels, ranges.shapes)
    spaces = [Space(family, kernel, shapes, ranges.more, expected.latency) for family, kernel, shapes in cases]
    limits = _limits(budget, latency)
    groups = [group for space in spaces for group in space.begin(limits, expected)]
    bounds = [group.bound(limits, expected) for group in groups]
    found: list[Designed] = []
    bound = None
    while len(found) < top:
        best = _highest(groups, bounds, limits, expected)
        if best is None:
            break
        total = cost(best.spec)
        found.append(Designed(best.spec, total, best.score, bound))
        bound = limits[MACS] = int(total.macs / STEP)
    if not found:
        raise GateError(_infeasible(budget, spaces, expected, latency))
    return found


class Best(NamedTuple):
    """A network with what it is ranked by."""

    spec: ModelSpec
    score: float
    macs: int
    params: int

    def rank(self) -> tuple[float, ...]:
        """Return what orders networks: of two the larger one stands above."""
        shape = (*self.spec.widths, *self.spec.blocks_per_stage)
        return (self.score, -self.macs, -self.params, *(-number for number in shape))


class Beginnings(NamedTuple):
    """Networks without their last stages, one a column: indices of widths and numbers of blocks by stage, and what is spent."""

    widths: np.ndarray  # (stages so far, N)
    blocks: np.ndarray  # (stages so far, N)
    spent: np.ndarray  # (4, N) int64


class Space:
    """The networks of a family, a kernel and shapes, by tables of what their blocks cost."""

    def __init__(self, family: str, kernel: int, shapes: Shapes, more: dict[str, Any], times: Times) -> None:
        self.family, self.kernel, self.more, self.rising = family, kernel, more, shapes.rising
        self.widths, self.blocks = ([sorted(set(some)) for some in ranges] for ranges in (shapes.widths, shapes.blocks))
        if not self.widths or len(self.widths) != len(self.blocks) or not all((*self.widths, *self.blocks)):
            raise UsageError("ranges: hold no network. Give every stage a width and a number of blocks.")
        self.smallest = least = self.spec(_narrowest(self.widths, self.rising), [some[0] for some in self.blocks])
        made, stages = parts(family), least.stages()
        w: list[Any] = [np.array(some) for some in self.widths]  # where a block says int
        widest = self.spec([some[-1] for some in self.widths], [1] * len(w))
        follows = [least.stem_width, widest.stem_width] == [self.widths[0][0], self.widths[0][-1]]
        width_in: Any = w[0] if follows else least.stem_width  # the stem is as wide as the first stage, or fixed
        stem = _table(stem_part(least, made, width_in), times, 1, len(w[0]))
        # of each stage (4, widths in, widths), of the first one with the stem and (4, 1, widths)
        self.first: list[np.ndarray] = []
        self.rest: list[np.ndarray] = []  # of each stage (4, widths)
        for stage, width in zip(stages, w, strict=True):
            one = made.block(least, width_in, width, stage.stride, stage.side_in, stage.side)
            self.first.append(_table(one, times, len(w[len(self.first) - 1]) if self.first else 1, len(width)))
            self.rest.append(_table(made.block(least, width, width, 1, stage.side, stage.side), times, len(width)))
            width_in = width[:, None]
        self.first[0] = _with(self.first[0], stem)
        self.head = _table(head_part(least, made, w[-1], stages[-1].side), times, len(w[-1]))

    def spec(self, widths: Sequence[int], blocks: Sequence[int]) -> ModelSpec:
        """Return the network of these stages."""
        return ModelSpec(self.family, tuple(widths), tuple(blocks), kernel=self.kernel, **self.more)

    def begin(self, limits: list[int], expected: Expected) -> "list[Group]":
        """Return every network within the limits (params, macs, time, peak) without its last stage, grouped."""
        begun = Beginnings(np.zeros((0, 1), int), np.zeros((0, 1), int), np.zeros((4, 1), int))
        for number in range(len(self.first) - 1):
            grown = []
            for place, some in _by_width(begun):
                start = self._start(number, place)
                for blocks in self.blocks[number]:
                    table = self._stage(number, place, blocks)
                    spent = _with(some.spent[:, :, None], table[:, None, start:])
                    column, width = np.nonzero((spent <= np.array(limits)[:, None, None]).all(0))
                    shape = np.full((1, len(column)), blocks)
                    grown.append(
                        Beginnings(
                            np.concatenate([some.widths[:, column], width[None] + start]),
                            np.concatenate([some.blocks[:, column], shape]),
                            spent[:, column, width],
                        )
                    )
            if not grown:
                break
            begun = Beginnings(*(np.concatenate(arrays, axis=1) for arrays in zip(*grown, strict=True)))
        groups = list[Group]()
        shape = expected.shape_score(self.family, np.arange(sum(some[-1] for some in self.blocks) + 1).clip(1))
        for place, some in _by_width(begun):
            least, most, depth = some.spent.min(1), some.spent.max(1), some.blocks.sum(0)
            start = self._start(len(self.first) - 1, place)
            for blocks in self.blocks[-1]:
                shapes = shape[depth + blocks]
                table = _with(self._stage(len(self.first) - 1, place, blocks), self.head)
                cuts = [] if (np.diff(table[:, start:]) >= 0).all() else range(start + 1, table.shape[1])
                for begin, end in itertools.pairwise(
                    [start, *cuts, table.shape[1]]
                ):  # one by one where the widest is not best
                    groups.append(
                        Group(self, some, blocks, begin, table[:, begin:end], least, most, shapes, shapes.max())
                    )
        return groups

    def _start(self, number: int, place: int) -> int:
        """Return the index of the narrowest width of a stage after one of the width at `place`."""
        return bisect.bisect_left(self.widths[number], self.widths[number - 1][place]) if number and self.rising else 0

    def _stage(self, number: int, place: int, blocks: int) -> np.ndarray:
        """Return what a stage costs by its width (4, widths), after a stage of the width at `place`."""
        first = self.first[number][:, place]
        if blocks == 1:
            return first
        rest = self.rest[number] * np.array([[blocks - 1]] * len(SUMS) + [[1]])
        return _with(first, rest)


class Group(NamedTuple):
    """Networks that have come to the same width and end in the same number of blocks; what bounds their scores."""

    space: Space
    some: Beginnings
    blocks: int
    start: int  # index of the narrowest last stage that they may end in
    table: np.ndarray  # what the last stage and the head cost by width (4, widths from `start` on), never falling
    least: np.ndarray  # (4,) spent so far
    most: np.ndarray
    shapes: np.ndarray  # (N,) the part of the score that follows from family and depth
    best_shape: float

    def bound(self, limits: list[int], expected: Expected) -> float:
        """Return a score that no network of the group is above under these limits (params, macs, time, peak)."""
        widest = self.table.shape[1]
        for row in _limited(limits):
            widest = min(widest, int(self.table[row].searchsorted(limits[row] - self.least[row], "right")))
        if not widest:
            return -math.inf
        most = self.most + self.table[:, widest - 1]
        params, macs = (min(limits[row], int(most[row])) for row in (PARAMS, MACS))
        return float(expected.cost_score(params, macs) + self.best_shape)

    def highest(self, limits: list[int], expected: Expected) -> Iterator[Best]:
        """Yield those that rank highest within the limits, each as wide in its last stage as there is room for."""
        some, table = self.some, self.table
        widest = np.full(some.spent.shape[1], table[PEAK].searchsorted(limits[PEAK], "right"))
        for row in _limited(limits):
            np.minimum(widest, table[row].searchsorted(limits[row] - some.spent[row], "right"), out=widest)
        column = np.nonzero((widest > 0) & (some.spent[PEAK] <= limits[PEAK]))[0]
        if not len(column):
            return
        params, macs = (some.spent[row, column] + table[row, widest[column] - 1] for row in (PARAMS, MACS))
        score = expected.cost_score(params, macs) + self.shapes[column]
        for i in np.nonzero(score == score.max())[0]:
            places = (*some.widths[:, column[i]], self.start + widest[column[i]] - 1)
            widths = [found[at] for found, at in zip(self.space.widths, places, strict=True)]
            spec = self.space.spec(widths, [*map(int, some.blocks[:, column[i]]), self.blocks])
            yield Best(spec, float(score[i]), int(macs[i]), int(params[i]))


def _highest(groups: list[Group], bounds: list[float], limits: list[int], expected: Expected) -> Best | None:
    """Return the network of all groups that ranks highest within the limits, or None.

    bounds: for each group a score that none of it is above under these limits or wider ones; they are lowered here to what was
    seen. A group that cannot hold a higher one is passed over. Of equals in all that ranks the one of the earlier group stands.
    """
    best: Best | None = None
    above: tuple[tuple[float, ...], int] = ((), 0)
    for number in sorted(range(len(groups)), key=lambda number: -bounds[number]):
        if best is not None and bounds[number] < best.score:
            break
        bounds[number] = groups[number].bound(limits, expected)
        if best is None or bounds[number] >= best.score:
            found = list(groups[number].highest(limits, expected))
            bounds[number] = found[0].score if found else -math.inf
            for one in found:
                if (rank := (one.rank(), -number)) > above:
                    best, above = one, rank
    return best


def _limited(limits: list[int]) -> list[int]:
    """Return the rows of sums that are limited."""
    return [row for row in SUMS if limits[row] < NO_LIMIT]


def _narrowest(widths: Sequence[Sequence[int]], rising: bool) -> list[int]:
    """Return the smallest width of each stage."""
    found: list[int] = []
    for some in widths:
        wide_enough = [width for width in some if not (rising and found) or width >= found[-1]]
        if not wide_enough:
            raise UsageError("ranges: hold no network whose stages are each at least as wide as the one before.")
        found.append(wide_enough[0])
    return found


def _table(part: Block, times: Times, *shape: int) -> np.ndarray:
    params, macs, activations, peak = part
    time = macs * times.macs + activations * times.activations + times.part
    return np.stack([np.broadcast_to(np.asarray(value, np.int64), shape) for value in (params, macs, time, peak)])


def _with(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return what both cost together: sums added, of the peaks the larger."""
    both: np.ndarray = left + right
    both[PEAK] = np.maximum(left[PEAK], right[PEAK])
    return both


def _by_width(begun: Beginnings) -> Iterator[tuple[int, Beginnings]]:
    """Yield (index of the last width, the networks that end in it); (0, all) before the first stage."""
    if not len(begun.widths):
        yield 0, begun
        return
    order = np.argsort(begun.widths[-1], kind="stable")
    last = begun.widths[-1][order]
    for part in np.split(order, np.nonzero(np.diff(last))[0] + 1) if len(order) else []:
        yield int(begun.widths[-1][part[0]]), Beginnings(*(array[:, part] for array in begun))


def _limits(budget: Budget, latency: float | None) -> list[int]:
    """Return the largest params, macs, time and peak that are allowed."""
    by_bytes = NO_LIMIT if budget.max_bytes is None else budget.max_bytes // 4
    wanted = (budget.max_params, budget.max_macs, None if latency is None else int(latency * 1e15), budget.max_ram)
    params, macs, time, peak = (NO_LIMIT if limit is None else limit for limit in wanted)
    return [min(params, by_bytes), macs, time, peak]


def _infeasible(budget: Budget, spaces: list[Space], expected: Expected, latency: float | None) -> str:
    """Return which limits the smallest network of the ranges exceeds."""
    smallest = min((space.smallest for space in spaces), key=lambda spec: cost(spec).params)
    total = cost(smallest)
    text, seconds = check_budget(total, budget).text, expected.latency.seconds(smallest, total)
    if latency is not None and seconds > latency:
        text = f"over the latency: about {1000 * seconds:.3g} / {1000 * latency:g} ms; {text}"
    return f"no network of these ranges keeps the budget: the smallest {smallest.family}, {format_spec(smallest)}, is {text}."
