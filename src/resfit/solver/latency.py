"""What a network takes for one image alone, measured on this machine's CPU, and the design that keeps a limit of it."""

import functools
import itertools
import statistics
import time

import torch

from resfit.budget import Budget, check_budget
from resfit.errors import GateError
from resfit.evaluation.folding import fold
from resfit.machine import default_threads, tune
from resfit.models.families import build, cost
from resfit.models.spec import ModelSpec, format_spec
from resfit.solver.exact import Designed, Space, design
from resfit.solver.expected import Expected, load_expected
from resfit.solver.ranges import Ranges

SECONDS, LEAST = 0.2, 11  # how long, and how often at least, a network is run
ROUNDS = 12  # of correcting the model by what a finalist took
FULL = 0.95  # of the limit: near enough


def measure_latency(spec: ModelSpec) -> float:
    """Return the median seconds of a forward pass of one image with all threads, BatchNorms folded as `predict` does."""
    tune(default_threads())
    shape = (spec.channels, spec.image_size, spec.image_size)
    model = fold(build(spec).eval(), shape).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.zeros(1, *shape).to(memory_format=torch.channels_last)
    times: list[float] = []
    with torch.inference_mode():
        for _ in range(3):
            model(image)
        begun = time.perf_counter()
        while len(times) < LEAST or time.perf_counter() < begun + SECONDS:
            started = time.perf_counter()
            model(image)
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def design_measured(
    latency: float,
    budget: Budget | None = None,
    ranges: Ranges | None = None,
    top: int = 10,
    expected: Expected | None = None,
) -> list[tuple[Designed, float]]:
    """Return up to `top` networks as `design` does, each with its latency measured, in seconds, all at most `latency`.

    The search keeps a model of latency (expected.py) under the limit. How much slower this machine is than the model is
    measured on the finalists, until the first of them keeps the limit and nearly fills it. It differs between large networks
    and small ones: where none is left by that of a large one, it moves towards that of the smallest. Raises GateError where
    none keeps the limit.
    """
    expected, measured = expected or load_expected(), functools.cache(measure_latency)
    (best,) = design(budget, ranges, 1, expected)
    least = fastest(budget or Budget(), ranges or Ranges(), expected) or best.spec
    if (taken := measured(least)) > latency:
        raise GateError(
            f"no network was measured within {1000 * latency:g} ms."
            f" The smallest, {format_spec(least)}, took {1000 * taken:.3g} ms."
        )
    of_least = taken / expected.latency.seconds(least, cost(least))
    slower, fitting = measured(best.spec) / expected.latency.seconds(best.spec, best.cost), None
    for _ in range(ROUNDS):
        try:
            (found,) = design(budget, ranges, 1, expected, latency / slower)
        except GateError:
            slower = (slower * of_least) ** 0.5
            continue
        taken = measured(found.spec)
        if taken <= latency:
            fitting = slower
        if taken <= latency and (taken >= FULL * latency or found.spec == best.spec):
            break
        slower *= taken / latency if taken > latency else max(taken / latency, FULL)
    if fitting is None:
        raise GateError(
            f"no larger network than {format_spec(least)} was measured within {1000 * latency:g} ms. The nearest took"
            f" {1000 * taken:.3g} ms."
        )
    rows = [(one, measured(one.spec)) for one in design(budget, ranges, top, expected, latency / fitting)]
    return [row for row in rows if row[1] <= latency]


def fastest(budget: Budget, ranges: Ranges, expected: Expected) -> ModelSpec | None:
    """Return of each family's smallest network within the budget the one whose modelled latency is least."""
    cases = itertools.product(ranges.families, ranges.kernels, ranges.shapes)
    found = [Space(family, kernel, shapes, ranges.more, expected.latency).smallest for family, kernel, shapes in cases]
    kept = [spec for spec in found if check_budget(cost(spec), budget).ok]
    return min(kept, key=lambda spec: expected.latency.seconds(spec, cost(spec)), default=None)
