"""How the time of `design` grows with the ranges it searches, beside counting every network one by one; prints JSON.

    python benchmarks/design_time.py
    python benchmarks/design_time.py --image-size 96    # the default question for 37 classes of larger images, alone

Each row is the median of five answers (the best network under five million parameters, in one process that has imported
all). Brute force, `cost` of every network, is measured where there are at most 50,000 of them, in alternation.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from resfit.budget import Budget
from resfit.models.families import cost
from resfit.models.spec import ModelSpec
from resfit.solver.exact import design
from resfit.solver.expected import Expected, load_expected
from resfit.solver.ranges import Ranges, default_ranges, even
from result import show

REPEATS, MOST = 5, 50_000
CASES = [
    (1, 8),
    (2, 64),
    (2, 32),
    (2, 8),
    (3, 64),
    (3, 32),
    (3, 16),
    (3, 8),
    (3, 4),
    (4, 64),
    (4, 32),
    (4, 16),
]  # stages, width step
DEFAULT = (3, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image-size", type=int)
    size, rule = parser.parse_args().image_size, load_expected()
    if size is None:
        growth(rule)
    else:
        larger(size, rule)


def larger(size: int, rule: Expected) -> None:
    """Time the default question for images of this size."""
    ranges = default_ranges(more={"image_size": size, "classes": 37})
    times = [timed(best_score, rule, ranges)[0] for _ in range(REPEATS)]
    figure = f"seconds of `design` over its default ranges for images of {size} pixels, imports apart"
    stages = len(ranges.shapes[0].widths)
    show(figure, times, 1.0, digits=3, goal_is="value at most", networks=count(ranges), stages=stages)


def growth(rule: Expected) -> None:
    rows: list[dict[str, Any]] = []
    for stages, step in CASES:
        ranges = Ranges(shapes=(even(stages, range(step, 513, step)),))
        networks = count(ranges)
        ours, theirs = [], []
        for _ in range(REPEATS):
            seconds, found = timed(best_score, rule, ranges)
            ours.append(seconds)
            if networks <= MOST:
                seconds, best = timed(brute_force, rule, ranges)
                theirs.append(seconds)
                assert best == found, "brute force found another network"
        rows.append(
            {"stages": stages, "width_step": step, "networks": networks, **medians(ours, theirs), "times": ours}
        )
    (default,) = [row for row in rows if (row["stages"], row["width_step"]) == DEFAULT]
    largest = max((row for row in rows if row["brute_force_seconds"]), key=lambda row: row["networks"])
    show(
        "seconds of `design` over its default ranges, imports apart",
        default["times"],
        1.0,
        digits=3,
        goal_is="value at most",
        peer=f"counting every network, {largest['networks']:,} of them",
        ratio_there=round(largest["brute_force_seconds"] / largest["seconds"], 1),
        networks=default["networks"],
        rows=[{name: value for name, value in row.items() if name != "times"} for row in rows],
    )


def best_score(rule: Expected, ranges: Ranges) -> float:
    return design(None, ranges, 1, rule)[0].score


def timed(call: Callable[[Expected, Ranges], float], rule: Expected, ranges: Ranges) -> tuple[float, float]:
    started = time.perf_counter()
    found = call(rule, ranges)
    return time.perf_counter() - started, found


def medians(ours: list[float], theirs: list[float]) -> dict[str, float | None]:
    brute_force = round(statistics.median(theirs), 3) if theirs else None
    return {"seconds": round(statistics.median(ours), 4), "brute_force_seconds": brute_force}


def count(ranges: Ranges) -> int:
    """Return the number of networks in ranges, widths rising."""
    (shapes,) = ranges.shapes
    ending = dict.fromkeys(shapes.widths[0], 1)  # widths of the stages so far, by the last one
    for widths in shapes.widths[1:]:
        ending = {width: sum(many for last, many in ending.items() if last <= width) for width in widths}
    return len(ranges.families) * len(ranges.kernels) * sum(ending.values()) * prod(map(len, shapes.blocks))


def brute_force(rule: Expected, ranges: Ranges) -> float:
    """Return the highest score within the budget."""
    budget, best = Budget(), -np.inf
    for spec in every(ranges):
        total = cost(spec)
        if budget.max_params is None or total.params <= budget.max_params:
            arrays = (np.array(number) for number in (total.params, total.macs, sum(spec.blocks_per_stage)))
            best = max(best, float(rule.score(spec.family, *arrays)))
    return best


def every(ranges: Ranges) -> Iterator[ModelSpec]:
    (shapes,) = ranges.shapes
    rising = itertools.combinations_with_replacement(shapes.widths[0], len(shapes.widths))
    for family, widths, blocks in itertools.product(ranges.families, rising, itertools.product(*shapes.blocks)):
        yield ModelSpec(family, widths, blocks)


if __name__ == "__main__":
    main()
