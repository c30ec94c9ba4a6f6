"""Selective prediction against its definition by loops."""

import numpy as np
import pytest

from resfit.evaluation.metrics import softmax
from resfit.evaluation.selective import selective


def test_curve_and_area_are_those_of_the_definition():
    draw = np.random.default_rng(0)
    probs, labels = softmax(draw.normal(0, 2, (333, 4))), draw.integers(0, 4, 333)
    value = selective(probs, labels)
    confidence, right = probs.max(1), probs.argmax(1) == labels
    order = sorted(range(333), key=lambda i: -confidence[i])
    risks = [np.mean([not right[i] for i in order[:k]]) for k in range(1, 334)]
    assert value["aurc"] == pytest.approx(np.mean(risks))
    assert 95 <= len(value["points"]) <= 100
    for point in value["points"]:
        taken = confidence >= point["threshold"]
        assert point["coverage"] == taken.mean()
        assert point["accuracy"] == pytest.approx(right[taken].mean())
    assert value["points"][-1]["coverage"] == 1
    coverages = [point["coverage"] for point in value["points"]]
    assert coverages == sorted(set(coverages))


def test_equal_confidences_count_as_in_random_order():
    probs = np.repeat([[0.9, 0.1], [0.6, 0.4]], [3, 5], 0)
    labels = np.array([0, 0, 1, 0, 1, 1, 0, 0])
    value = selective(probs, labels)
    assert [(p["coverage"], p["accuracy"]) for p in value["points"]] == [(3 / 8, pytest.approx(2 / 3)), (1.0, 5 / 8)]
    draw, areas = np.random.default_rng(1), []
    for _ in range(4000):  # ties broken at random, the mean of the areas
        order = np.concatenate([draw.permutation(3), 3 + draw.permutation(5)])
        wrong = (labels != 0)[order]
        areas.append((wrong.cumsum() / np.arange(1, 9)).mean())
    assert value["aurc"] == pytest.approx(np.mean(areas), abs=0.005)


def test_one_image():
    assert selective(np.array([[0.3, 0.7]]), np.array([1]))["points"] == [
        {"coverage": 1.0, "threshold": 0.7, "accuracy": 1.0}
    ]
