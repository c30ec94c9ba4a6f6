"""The rules that ship: what they say of their own source, and their arithmetic by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from resfit.budget import Budget
from resfit.models.families import cost
from resfit.models.networks import network
from resfit.solver.answer import answer, to_text
from resfit.solver.exact import design
from resfit.solver.expected import Expected, Times, load_expected

RESULT = Path(__file__).resolve().parents[2] / "results" / "design_runs.json"


def test_the_shipped_rule_is_the_one_of_the_result():
    rule, result = load_expected(), json.loads(RESULT.read_text())
    for name in ("params", "macs", "depth", "depth_squared", "images"):
        assert getattr(rule, name) == pytest.approx(result["rule"][name], abs=1e-5)
    for name, value in rule.families.items():
        assert value == pytest.approx(result["rule"][name], abs=1e-5)
    for kind in ("training", "latency"):
        assert vars(getattr(rule, kind)) == {
            name: result["times"][kind][name] for name in ("macs", "activations", "part")
        }
    assert rule.source["n"] == result["n"] == len(result["runs"])
    assert rule.source["rank_correlation"] == result["rank_correlation"]


def test_a_score_by_hand():
    rule = Expected(0.5, 0.25, 0.1, -0.01, 0.2, {"resnet": 0.3})
    score = rule.score("resnet", np.array(2**20), np.array(2**24), np.array(8))
    assert float(score) == pytest.approx(0.5 * 20 + 0.25 * 24 + 0.1 * 3 - 0.01 * 9 + 0.3)
    assert rule.accuracy(1.5) == pytest.approx(1 - math.exp(-1.5))
    assert rule.accuracy(1.5, images=4) == pytest.approx(1 - math.exp(-1.9))


def test_a_rule_that_does_not_grow_is_refused():
    with pytest.raises(AssertionError, match="grow with cost"):
        Expected(0.0, -0.1)


def test_seconds_by_hand():
    spec = network("resnet-20")
    total = cost(spec)
    expected = (total.macs * 3 + total.activations * 5 + 11 * 7) * 1e-15
    assert Times(3, 5, 7).seconds(spec, total) == pytest.approx(expected)


def test_the_answer_says_where_a_plain_count_ranks_as_well():
    counts = {"rule": 0.4, "params": 0.1, "macs": 0.5, "naswot": 0.2, "synflow": 0.3, "grad_norm": 0.6}
    source = {"n": 9, "data": "images", "device": "a machine", "rank_correlation": counts}
    budget = Budget(max_params=50_000, max_bytes=200_000)
    for rule, words in ((0.4, "so that the count ranks"), (0.6, "alone: params 0.10, macs 0.50.")):
        said = Expected(0.1, 0.1, training=Times(1), source=source | {"rank_correlation": counts | {"rule": rule}})
        value = answer(design(budget, top=2, expected=said), budget, said)
        text = to_text(value)
        assert words in text
        assert f"{value['networks'][0]['params']:,} / 50,000" in text
        assert f"{value['networks'][0]['weight_bytes']:,} / 200,000" in text
        assert ("no better" in text) is (rule < 0.5)
