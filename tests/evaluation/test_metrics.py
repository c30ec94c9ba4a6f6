"""Scores and intervals against scipy, torch and published figures."""

import numpy as np
import pytest
import torch
from scipy import stats

from resfit.evaluation.metrics import (
    difference_interval,
    drift,
    mean_interval,
    nll,
    score,
    softmax,
    t975,
    wilson_interval,
)

# The published table (Fisher & Yates, "Statistical tables", table III, as NIST's handbook prints it): df -> quantile.
T_TABLE = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    9: 2.262,
    10: 2.228,
    20: 2.086,
    30: 2.042,
    60: 2.000,
    120: 1.980,
}


def test_t_quantiles():
    assert {freedom: round(t975(freedom), 3) for freedom in T_TABLE} == T_TABLE
    for freedom in (1.0, 1.3, 2.7, 3.14, 17.5, 1000.0):
        assert t975(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)


@pytest.mark.parametrize(("n", "m", "spread"), [(3, 3, 0.01), (3, 5, 0.1), (2, 30, 0.001)])
def test_difference_interval_is_welchs(n, m, spread):
    draw = np.random.default_rng(n * m)
    left, right = draw.normal(0.93, 0.01, n), draw.normal(0.92, spread, m)
    ours = difference_interval(list(left), list(right))
    theirs = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert ours["interval"] == pytest.approx((theirs.low, theirs.high), rel=1e-6)
    assert ours["difference"] == pytest.approx(left.mean() - right.mean())


def test_difference_of_single_values_has_no_interval():
    assert difference_interval([0.5], [0.25, 0.25]) == {"difference": 0.25, "interval": None, "n": [1, 2]}
    assert difference_interval([0.5, 0.5], [0.25, 0.25])["interval"] == [0.25, 0.25]


@pytest.mark.parametrize("n", [2, 3, 10, 31, 32, 60, 300])
def test_mean_interval(n):
    values = np.random.default_rng(n).normal(0.9, 0.01, n)
    ours = mean_interval(list(values))
    theirs = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    assert ours["interval"] == pytest.approx(theirs, abs=3e-6)
    assert ours["std"] == pytest.approx(values.std(ddof=1))


def test_one_value_has_no_spread():
    assert mean_interval([0.5]) == {"n": 1, "mean": 0.5, "std": None, "interval": None}


@pytest.mark.parametrize(("correct", "count"), [(0, 10), (10, 10), (7, 10), (8500, 10000), (1, 1)])
def test_wilson(correct, count):
    theirs = stats.binomtest(correct, count).proportion_ci(0.95, "wilson")
    assert wilson_interval(correct, count) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_wilson_of_nothing_is_everything():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_nll_and_softmax_are_torchs():
    logits = np.random.default_rng(0).normal(0, 30, (50, 7)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 7, 50)
    theirs = torch.nn.functional.cross_entropy(torch.tensor(logits).double(), torch.tensor(labels)).item()
    assert nll(logits, labels) == pytest.approx(theirs, rel=1e-6)
    np.testing.assert_allclose(softmax(logits), torch.tensor(logits).softmax(1).numpy(), atol=1e-6)


def test_score_by_class():
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 2, 2, 2]] * 5
    value = score(logits, np.array([0, 1, 1, 2, 2, 0]), ["a", "b", "c", "never"])
    assert value["correct"] == 4
    assert value["accuracy"] == pytest.approx(4 / 6)
    assert {name: (row["correct"], row["n"]) for name, row in value["classes"].items()} == {
        "a": (1, 2),
        "b": (1, 2),
        "c": (2, 2),
        "never": (0, 0),
    }
    assert value["classes"]["never"]["accuracy"] is None


def sample(n, shares, confidence, seed):
    """Predictions with these class shares and about this confidence."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), n, p=shares)
    top = np.clip(rng.normal(confidence, 0.05, n), 0.4, 1)
    probs = np.tile(((1 - top) / (len(shares) - 1))[:, None], (1, len(shares)))
    probs[np.arange(n), labels] = top
    return probs


def test_drift_warns_where_there_is_some_and_only_there():
    even, skewed = [0.25] * 4, [0.55, 0.15, 0.15, 0.15]
    val = sample(1000, even, 0.9, 0)
    alarms = sum(bool(drift(sample(300, even, 0.9, seed), val)) for seed in range(1, 201))
    assert alarms <= 2
    assert "class shares" in drift(sample(300, skewed, 0.9, 7), val)[0]
    assert "confidence" in drift(sample(300, even, 0.75, 7), val)[0]
    assert drift(sample(20, skewed, 0.6, 7), val) == []


@pytest.mark.parametrize("seed", range(5))
def test_balanced_accuracy_and_macro_f1_are_scikit_learns(seed):
    from sklearn.metrics import f1_score, recall_score

    draw = np.random.default_rng(seed)
    labels = draw.choice(6, 80, p=[0.6, 0.2, 0.1, 0.05, 0.05, 0.0])  # a class without images
    logits = draw.normal(size=(80, 6)) + 2 * np.eye(6)[labels]
    value, here = score(logits, labels, tuple("abcdef")), np.unique(labels)
    assert value["balanced_accuracy"] == pytest.approx(
        recall_score(labels, logits.argmax(1), labels=here, average="macro")
    )
    wanted = f1_score(labels, logits.argmax(1), labels=here, average="macro")
    assert value["macro_f1"] == pytest.approx(wanted)
