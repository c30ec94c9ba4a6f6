"""Calibration against its definition by loops, a dense grid of temperatures, and scikit-learn."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from resfit.evaluation.calibration import (
    calibration,
    calibration_error,
    cross_scale,
    fit_temperature,
    reliability_bins,
)
from resfit.evaluation.metrics import nll, softmax


def drawn(seed: int, count: int = 2000, classes: int = 5, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn by them: calibrated, once the logits are divided by the temperature."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (count, classes))
    labels = (softmax(logits).cumsum(1) < draw.random((count, 1)) * 0.99999).sum(1)
    return (logits * temperature).astype(np.float32), labels


def test_bins_are_those_of_the_definition():
    logits, labels = drawn(0, 500)
    probs = softmax(logits)
    confidence, right = probs.max(1), probs.argmax(1) == labels
    rows = reliability_bins(probs, labels, 10)
    ece = 0.0
    for k, row in enumerate(rows):
        here = [i for i in range(500) if k / 10 < confidence[i] <= (k + 1) / 10]
        assert row["n"] == len(here)
        if here:
            assert row["confidence"] == pytest.approx(np.mean([confidence[i] for i in here]))
            assert row["accuracy"] == np.mean([right[i] for i in here])
            ece += len(here) / 500 * abs(row["accuracy"] - row["confidence"])
        else:
            assert row["confidence"] is None
            assert row["accuracy"] is None
    assert calibration_error(rows) == pytest.approx(ece)
    filled = [row for row in rows if row["n"]]
    theirs = calibration_curve(right, confidence, n_bins=10)
    np.testing.assert_allclose([row["accuracy"] for row in filled], theirs[0])
    np.testing.assert_allclose([row["confidence"] for row in filled], theirs[1])


def test_a_known_error():
    probs = np.repeat([[0.8, 0.2]], 10, 0)
    labels = np.array([0] * 5 + [1] * 5)
    assert calibration_error(reliability_bins(probs, labels)) == pytest.approx(0.3)
    sure = reliability_bins(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert sure[-1] == {"low": 14 / 15, "high": 1.0, "n": 2, "confidence": 1.0, "accuracy": 0.5}


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_the_best_of_a_dense_grid(temperature):
    logits, labels = drawn(1, 800, temperature=temperature)
    found = fit_temperature(logits, labels)
    grid = temperature * np.geomspace(0.5, 2, 400)
    losses = [nll(logits / t, labels) for t in grid]
    assert nll(logits / found, labels) <= min(losses) + 1e-12
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.005)
    assert found == pytest.approx(temperature, rel=0.15)


def test_temperature_has_bounds_where_all_is_right_or_nothing_is_known():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    assert fit_temperature(logits, logits.argmax(1)) == pytest.approx(0.1)
    assert fit_temperature(-logits, logits.argmax(1)) == pytest.approx(10)


def test_scaling_is_of_the_other_half_and_follows_keys_not_order():
    logits, labels = drawn(2, 401, temperature=2.5)
    keys = np.random.default_rng(0).permutation(401).astype(np.uint64)
    scaled = cross_scale(logits, labels, keys)
    right = logits.argmax(1) == labels
    order = sorted(range(401), key=lambda i: (right[i], keys[i]))
    odd = np.isin(np.arange(401), order[1::2])
    assert abs(int((~right[odd]).sum()) - int((~right[~odd]).sum())) <= 1
    np.testing.assert_allclose(scaled[odd], logits[odd] / fit_temperature(logits[~odd], labels[~odd]))
    np.testing.assert_allclose(scaled[~odd], logits[~odd] / fit_temperature(logits[odd], labels[odd]))
    order = np.random.default_rng(1).permutation(401)
    np.testing.assert_array_equal(cross_scale(logits[order], labels[order], keys[order]), scaled[order])


def test_what_evaluation_says():
    logits, labels = drawn(3, temperature=3.0)
    value = calibration(logits, labels, np.arange(len(labels), dtype=np.uint64))
    assert value["temperature"] == pytest.approx(3, rel=0.15)
    assert value["scaled"]["ece"] < value["ece"] / 3
    assert value["scaled"]["nll"] < nll(logits, labels)
    scaled = cross_scale(logits, labels, np.arange(len(labels), dtype=np.uint64))
    assert value["scaled"]["nll"] == pytest.approx(log_loss(labels, softmax(scaled)), rel=1e-5)
    assert sum(row["n"] for row in value["bins"]) == sum(row["n"] for row in value["scaled"]["bins"]) == len(labels)
