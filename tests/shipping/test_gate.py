"""The gates of an export, on plain numbers: each bound holds at its edge and breaks behind it."""

import numpy as np
import pytest

from resfit.shipping.gate import BOUNDS, Bounds, compare


def logits_of(labels: np.ndarray, classes: int = 4) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[labels] * 5


LABELS = np.arange(2000) % 4
NETWORK = logits_of(LABELS)


def wrong_on(count: int) -> np.ndarray:
    """Logits that name another class for the first images."""
    return logits_of(np.where(np.arange(len(LABELS)) < count, (LABELS + 1) % 4, LABELS))


def test_bounds_are_those_of_the_issue():
    assert {
        "float32": Bounds(agreement=1.0, difference=1e-4),
        "float16": Bounds(agreement=0.999, loss=0.001),
        "int8": Bounds(loss=0.005),
    } == BOUNDS


@pytest.mark.parametrize("precision", BOUNDS)
def test_the_same_logits_pass(precision):
    parity = compare(NETWORK, NETWORK, LABELS, precision)
    assert not parity.wrong
    assert (parity.n, parity.accuracy, parity.agreement, parity.max_difference) == (2000, 1, 1, 0)


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_never_passes(precision, value):
    spoilt = NETWORK.copy()
    spoilt[7, 2] = value
    parity = compare(spoilt, NETWORK, LABELS, precision)
    assert parity.wrong == "a logit is not finite"
    assert parity.max_difference is None


def test_float32_allows_no_other_answer_and_no_difference():
    assert not compare(NETWORK + 5e-5, NETWORK, LABELS, "float32").wrong
    assert "differs by 0.0002" in compare(NETWORK + 2e-4, NETWORK, LABELS, "float32").wrong
    assert compare(wrong_on(1), NETWORK, LABELS, "float32").wrong.startswith("1 of 2,000 predictions differ")


def test_ties_within_the_difference_are_exempt_and_others_are_not():
    tied, other = NETWORK.copy(), NETWORK.copy()
    tied[0, 1] = tied[0, 0] - 5e-5
    other[0, 1] = tied[0, 0] + 2e-5  # the second one wins now, within the bound
    parity = compare(other, tied, LABELS, "float32")
    assert not parity.wrong
    assert parity.agreement == 1
    tied[0, 1] = other[0, 0] - 3e-4  # no tie
    other[0, 0] = tied[0, 0] - 4e-4
    other[0, 1] = tied[0, 1]
    assert "1 of 2,000" in compare(other, tied, LABELS, "float32").wrong


def test_float16_keeps_agreement_and_accuracy():
    assert not compare(wrong_on(2), NETWORK, LABELS, "float16").wrong  # 99.9%, and 0.1 points lost
    assert "3 of 2,000" in compare(wrong_on(3), NETWORK, LABELS, "float16").wrong
    few = np.arange(500) % 4  # one answer of 500 is 0.2 points
    assert compare(logits_of(np.where(np.arange(500) < 1, 3, few)), logits_of(few), few, "float16").wrong


def test_int8_keeps_accuracy_alone():
    assert not compare(wrong_on(10), NETWORK, LABELS, "int8").wrong  # 0.5 points
    wrong = compare(wrong_on(11), NETWORK, LABELS, "int8").wrong
    assert wrong == "0.55 points of accuracy are lost (100.00% to 99.45% of 2,000), which is more than 0.5"
    shuffled = (LABELS + 1) % 4  # other answers, none of them worse
    assert not compare(logits_of(shuffled), logits_of((LABELS + 2) % 4), LABELS, "int8").wrong
