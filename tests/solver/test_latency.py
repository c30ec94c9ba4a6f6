"""Networks that keep a latency, measured on the machine that runs the test."""

import pytest

from resfit.budget import Budget
from resfit.errors import GateError
from resfit.models.families import cost
from resfit.models.networks import network
from resfit.solver.exact import design
from resfit.solver.expected import Expected, Times
from resfit.solver.latency import design_measured, fastest, measure_latency
from resfit.solver.ranges import Ranges, even

RULE = Expected(0.05, 0.05, 0.1, latency=Times(20_000, 1_000, 10_000_000_000))
RANGES = Ranges(shapes=(even(3, (8, 16, 32, 64), (1, 2, 3)),), more={"image_size": 16})
BUDGET = Budget(max_params=300_000)


def test_a_limit_that_all_keep_changes_nothing():
    found = design_measured(60.0, BUDGET, RANGES, 3, RULE)
    assert [one for one, _ in found] == design(BUDGET, RANGES, 3, RULE)
    assert all(0 < seconds <= 60 for _, seconds in found)


def test_a_machine_slower_than_the_model_and_otherwise_is_met_by_correction(monkeypatch):
    """The machine is made up, so that no noise decides: 3.7 times slower, and more so where a network is large."""

    def slow(spec):
        return 3.7 * RULE.latency.seconds(spec, cost(spec)) * (1 + cost(spec).macs / 1e8)

    monkeypatch.setattr("resfit.solver.latency.measure_latency", slow)
    (best,) = design(BUDGET, RANGES, 1, RULE)
    for share in (0.9, 0.6, 0.45):
        limit = share * slow(best.spec)
        found = design_measured(limit, BUDGET, RANGES, 3, RULE)
        assert found[0][0].cost.macs < best.cost.macs
        assert 0.8 * limit <= found[0][1] <= limit
        assert all(seconds == slow(one.spec) <= limit for one, seconds in found)


def test_a_machine_that_is_slow_for_large_networks_alone_still_has_an_answer(monkeypatch):
    """By what the largest network took no small one would be left: the smallest, measured, says otherwise."""

    def uneven(spec):
        return RULE.latency.seconds(spec, cost(spec)) * (0.1 + cost(spec).macs / 2e7)

    monkeypatch.setattr("resfit.solver.latency.measure_latency", uneven)
    (best,) = design(BUDGET, RANGES, 1, RULE)
    least = fastest(BUDGET, RANGES, RULE)
    limit = 3 * uneven(least)
    slower = uneven(best.spec) / RULE.latency.seconds(best.spec, best.cost)
    with pytest.raises(GateError):
        design(BUDGET, RANGES, 1, RULE, limit / slower)
    found = design_measured(limit, BUDGET, RANGES, 2, RULE)
    assert 0.6 * limit <= found[0][1] <= limit
    with pytest.raises(GateError, match=r"no network was measured within .* ms\. The smallest, .*:widths=8,8,8"):
        design_measured(0.9 * uneven(least), BUDGET, RANGES, 1, RULE)


def test_a_measured_latency_is_that_of_a_real_network():
    small, large = (measure_latency(network(name)) for name in ("resnet-8", "r1-4"))
    assert 0 < small < large


def test_a_limit_that_none_keeps():
    with pytest.raises(GateError, match=r"over the latency: about|no network was measured within"):
        design_measured(1e-7, BUDGET, RANGES, 1, RULE)
