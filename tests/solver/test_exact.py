"""`design` against a brute-force enumeration of a small space, every network of it counted by `cost`."""

import itertools

import numpy as np
import pytest

from resfit.budget import Budget, check_budget
from resfit.errors import GateError, UsageError
from resfit.models.families import cost
from resfit.models.spec import ModelSpec
from resfit.solver.exact import STEP, design
from resfit.solver.expected import Expected, Times
from resfit.solver.ranges import COARSE, FEW, Ranges, Shapes, default_ranges, even, near_ranges

RULES = {
    "params and macs": Expected(0.05, 0.04, 0.2, -0.04, families={"separable": -0.1}, latency=Times(15, 40, 9_000)),
    "params alone": Expected(0.1, 0.0, families={"wrn": 0.01}),
    "macs alone": Expected(0.0, 0.1, -0.3, 0.1),
}
SPACES = {
    "one stage": Ranges(shapes=(even(1, (8, 16, 24, 40), (1, 2, 3)),)),
    "one and two stages": Ranges(
        kernels=(3, 5), shapes=(even(1, (7, 33), (1, 3)), even(2, (7, 16, 33), (1, 3))), more={"se_reduction": 4}
    ),
    "three stages": Ranges(shapes=(even(3, (8, 16, 40), (1, 2, 4)),), more={"image_size": 16, "classes": 100}),
    "a stem of stride 2 by the size": Ranges(
        shapes=(Shapes(((8, 16), (8, 24, 40), (16, 24, 56)), ((1, 2), (1, 3), (1, 2))),),
        more={"image_size": 96, "classes": 37},
    ),
    "a stem of stride 4, chosen": Ranges(
        shapes=(even(2, (8, 16, 24, 64), (1, 2, 3)),), more={"image_size": 40, "stem_stride": 4, "classes": 3}
    ),
    "a stem whose max-pool decides the peak": Ranges(
        shapes=(even(1, (8, 16, 64), (1, 2)),), more={"image_size": 130, "channels": 1, "strides": (2,)}
    ),
    "every stage as large, and its own": Ranges(
        shapes=(
            Shapes(((8, 16), (8, 16, 24), (8, 16, 24)), ((1, 2), (1,), (1, 3)), rising=False),
            Shapes(((24,), (8, 24, 32), (32, 16)), ((2,), (1, 2), (3, 1))),
        ),
        more={"strides": (1, 1, 1), "image_size": 8},
    ),
}
BUDGETS = [
    Budget(max_params=params, max_macs=macs, max_ram=ram, max_bytes=size)
    for params, macs, ram, size in itertools.product(
        (3_000, 20_000, 60_000, None), (None, 1_000_000, 8_000_000), (None, 9_000, 60_000), (None, 100_000)
    )
]


def every(ranges: Ranges, rule: Expected) -> list[tuple[tuple, ModelSpec]]:
    """Return all networks of the ranges, each with its rank."""
    found = []
    for family, kernel, shapes in itertools.product(ranges.families, ranges.kernels, ranges.shapes):
        for widths in itertools.product(*shapes.widths):
            if shapes.rising and list(widths) != sorted(widths):
                continue
            for blocks in itertools.product(*shapes.blocks):
                spec = ModelSpec(family, widths, blocks, kernel=kernel, **ranges.more)
                total = cost(spec)
                arrays = (np.array([n]) for n in (total.params, total.macs, sum(blocks)))
                rank = (float(rule.score(family, *arrays)[0]), -total.macs, -total.params)
                found.append((rank, tuple(-n for n in widths + blocks), total, spec))
    return sorted(found, key=lambda one: one[:2], reverse=True)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("ranges", SPACES.values(), ids=SPACES)
def test_nothing_within_the_ranges_and_the_budget_ranks_higher(ranges, rule):
    networks, feasible = every(ranges, rule), 0
    for budget, latency in itertools.product(BUDGETS, (None, 4e-8) if rule.latency.macs else (None,)):
        fast = [one for one in networks if latency is None or rule.latency.seconds(one[3], one[2]) <= latency]
        left = [one for one in fast if check_budget(one[2], budget).ok]
        if not left:
            with pytest.raises(GateError, match=r"over budget|over the latency"):
                design(budget, ranges, 1, rule, latency)
            continue
        feasible += 1
        assert latency is None or len(fast) < len(networks)
        for found in design(budget, ranges, 4, rule, latency):
            best = next(one for one in left if found.under_macs is None or one[2].macs <= found.under_macs)
            assert (found.spec, found.cost) == (best[3], best[2]), budget
    assert feasible > 10


def test_each_network_shown_has_fewer_macs_than_the_one_before():
    found = design(Budget(max_params=200_000), SPACES["three stages"], 5, RULES["params and macs"])
    assert len(found) == 5
    for before, after in itertools.pairwise(found):
        assert after.cost.macs <= before.cost.macs / STEP
        assert after.score <= before.score


def test_the_default_question_fills_the_budget():
    (found,) = design(top=1, expected=RULES["params and macs"])
    assert 0.99 * 5_000_000 < found.cost.params <= 5_000_000


@pytest.mark.parametrize(
    ("size", "stages", "side"),
    [(16, 3, 4), (32, 3, 8), (33, 4, 5), (64, 4, 8), (96, 4, 6), (128, 4, 8), (224, 4, 7), (256, 4, 8)],
)
def test_the_default_ranges_follow_the_size(size, stages, side):
    ranges = default_ranges(more={"image_size": size})
    (shapes,) = ranges.shapes
    assert len(shapes.widths) == len(shapes.blocks) == stages
    assert ModelSpec("wrn", (8,) * stages, (1,) * stages, **ranges.more).stages()[-1].side == side


def test_of_four_stages_the_default_is_coarse_and_the_last_fills_the_budget():
    (shapes,) = default_ranges(stages=[4]).shapes
    assert shapes == Shapes((COARSE,) * 3 + (tuple(range(8, 513, 8)),), (FEW,) * 4)
    assert default_ranges(stages=[4], width_step=128).shapes == (even(4, (128, 256, 384, 512)),)
    (found,) = design(top=1, ranges=default_ranges(more={"image_size": 96, "classes": 37}))
    assert 0.97 * 5_000_000 < found.cost.params <= 5_000_000
    assert found.spec.stem_stride == 2


def test_near_a_network_the_stem_follows_the_size():
    near = near_ranges(ModelSpec("resnet", (16, 32), (1, 1), pool=2), more={"image_size": 96})
    (found,) = design(Budget(max_params=200_000), near, 1)
    assert (found.spec.stem_stride, found.spec.pool, found.spec.image_size) == (2, 2, 96)
    kept = near_ranges(ModelSpec("resnet", (16, 32), (1, 1), image_size=96, stem_stride=1))
    assert design(Budget(max_params=200_000), kept, 1)[0].spec.stem_stride == 1


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        (Ranges(shapes=(even(2, ()),)), "ranges: hold no network"),
        (Ranges(shapes=(Shapes(((8,),), ()),)), "ranges: hold no network"),
        (Ranges(families=("whitened",)), "whitened: does not say what its blocks cost"),
        (Ranges(families=("resnett",)), "family: 'resnett' is not known. Did you mean 'resnet'"),
        (Ranges(shapes=(even(3, (8,)),), more={"se_reduction": 16}), "se_reduction: 16 is larger than the width 8"),
    ],
)
def test_ranges_without_networks(ranges, words):
    with pytest.raises(UsageError, match=words):
        design(ranges=ranges, expected=RULES["params alone"])
