"""Sizes as people write them, and the verdict."""

import pytest

from resfit.budget import Budget, check_budget, parse_duration, parse_size
from resfit.errors import UsageError
from resfit.models.families import cost
from resfit.models.networks import network


@pytest.mark.parametrize(
    ("text", "value"), [("5M", 5_000_000), ("500k", 500_000), ("2.5m", 2_500_000), ("1_000", 1000), ("7", 7), (9, 9)]
)
def test_sizes(text, value):
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "five", "5MB", "-3", "0", "0.5", "1.0005k", "nan", True])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="Write it as 5M"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5ms", 0.005), ("30s", 30), ("20m", 1200), ("1.5h", 5400), (" 2 H ", 7200), ("0.5ms", 0.0005)],
)
def test_times(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "0s", "-5ms", "5 minutes", "ms", "1e3s", "nan"])
def test_what_is_no_time(text):
    with pytest.raises(UsageError, match="Write it as 5ms, 30s, 20m or 2h"):
        parse_duration(text)


@pytest.mark.parametrize(("name", "ok"), [("r1-4", True), ("r2-7", True), ("r2-5", False), ("r1-baseline", False)])
def test_the_reports_networks_against_five_million(name, ok):
    verdict = check_budget(cost(network(name)), Budget())
    assert verdict.ok is ok
    assert verdict.text.startswith("within budget: " if ok else "over budget: ")


def test_a_limit_is_inclusive_and_each_exceeded_one_is_named():
    total = cost(network("resnet-20"))
    assert check_budget(total, Budget(272_474, 40_813_184, 4 * 272_474)).ok
    verdict = check_budget(total, Budget(272_473, 40_813_183, None))
    assert verdict.over == ("max_params", "max_macs")
    assert "272,474 / 272,473 params (over by 1)" in verdict.text
