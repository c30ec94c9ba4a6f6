"""How far confidences can be believed: reliability bins, expected calibration error, and the temperature that mends it.

Guo, Pleiss, Sun, Weinberger 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599. No torch.
"""

from typing import Any

import numpy as np

from resfit.evaluation.metrics import nll, softmax

BINS = 15  # as in the paper
COLDEST, HOTTEST = 0.1, 10.0  # where every answer is right, no temperature is low enough


def reliability_bins(probs: np.ndarray, labels: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """Return how right images are by confidence: rows {low, high, n, confidence, accuracy} of equal width over [0, 1].

    probs: (N, K); labels: (N,). A bin holds confidences above `low` and up to `high`; confidence and accuracy are means over
    its n images, None where it has none.
    """
    confidence, right = probs.max(1).astype(np.float64), probs.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    for k in range(bins):
        here = place == k
        row: dict[str, Any] = {"low": k / bins, "high": (k + 1) / bins, "n": int(here.sum())}
        for name, values in (("confidence", confidence), ("accuracy", right)):
            row[name] = float(values[here].mean()) if row["n"] else None
        rows.append(row)
    return rows


def calibration_error(rows: list[dict[str, Any]]) -> float:
    """Return the expected calibration error of reliability bins: |accuracy - confidence|, weighted by images."""
    total = sum(row["n"] for row in rows)
    return float(sum(row["n"] * abs(row["accuracy"] - row["confidence"]) for row in rows if row["n"]) / total)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the T in [0.1, 10] for which softmax(logits / T) has the least nll on labels (N,); logits (N, K).

    The nll is convex in 1 / T, so its slope is bisected.
    """
    logits = logits.astype(np.float64)
    target = logits[np.arange(len(labels)), labels]

    def slope(log_inverse: float) -> float:
        scaled = logits * np.exp(log_inverse)
        powers = np.exp(scaled - scaled.max(1, keepdims=True))
        expected = (powers * logits).sum(1) / powers.sum(1)
        return float((expected - target).mean())

    low, high = -np.log(HOTTEST), -np.log(COLDEST)
    for _ in range(40):  # to 1e-12 of its logarithm
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) <= 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def cross_scale(logits: np.ndarray, labels: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return logits (N, K) divided by a temperature that has not seen them: each half of the images takes the other's.

    keys: uint64 (N,), hashes that say who is in which half, so that it does not depend on the images' order. Mistakes are dealt
    out evenly: a half without any would take the lowest temperature, at any price for the other half's.
    """
    right = logits.argmax(1) == labels
    half = np.lexsort((keys, right)).argsort() % 2 == 1
    scaled = np.empty(logits.shape, np.float64)
    for mine in (half, ~half):
        other = np.flatnonzero(~mine) if (~mine).any() else np.flatnonzero(mine)
        scaled[mine] = logits[mine] / fit_temperature(logits[other], labels[other])
    return scaled


def calibration(logits: np.ndarray, labels: np.ndarray, keys: np.ndarray) -> dict[str, Any]:
    """Return ece, bins and the temperature fitted on all images, and what cross-fitted scaling makes of nll, ece and bins."""
    rows = reliability_bins(softmax(logits), labels)
    scaled = cross_scale(logits, labels, keys)
    after = reliability_bins(softmax(scaled), labels)
    return {
        "ece": calibration_error(rows),
        "bins": rows,
        "temperature": fit_temperature(logits, labels),
        "scaled": {"nll": nll(scaled, labels), "ece": calibration_error(after), "bins": after},
    }
