"""Scores and their uncertainty, from logits or counts. No torch, so that reports can use it too."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Z975 = 1.959964


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (N, K) float32 of logits (N, K)."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-likelihood, in nats, of labels (N,) under logits (N, K)."""
    logits = logits.astype(np.float64)
    top = logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return float((log_sum - logits[np.arange(len(labels)), labels]).mean())


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of images whose largest logit is the label's."""
    return float((logits.argmax(1) == labels).mean())


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Return the 95% interval of a proportion (Wilson 1927, JASA 22:209)."""
    if count == 0:
        return 0.0, 1.0
    share, z2 = correct / count, Z975**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z975 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """Return n, mean, standard deviation and the 95% t-interval of the mean; std and interval are None for n = 1."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return {"n": n, "mean": mean, "std": None, "interval": None}
    std = float(np.std(values, ddof=1))
    half = t975(n - 1) * std / math.sqrt(n)
    return {"n": n, "mean": mean, "std": std, "interval": [mean - half, mean + half]}


def difference_interval(left: Sequence[float], right: Sequence[float]) -> dict[str, Any]:
    """Return mean(left) - mean(right) and its 95% t-interval for unequal variances; interval None with n = 1 on a side.

    Welch 1947, "The generalization of Student's problem when several different population variances are involved".
    """
    difference = float(np.mean(left) - np.mean(right))
    value = {"difference": difference, "interval": None, "n": [len(left), len(right)]}
    if min(len(left), len(right)) < 2:
        return value
    errors = [float(np.var(side, ddof=1)) / len(side) for side in (left, right)]
    if sum(errors) == 0:
        return value | {"interval": [difference, difference]}
    freedom = sum(errors) ** 2 / sum(e**2 / (len(side) - 1) for e, side in zip(errors, (left, right), strict=True))
    half = t975(freedom) * math.sqrt(sum(errors))
    return value | {"interval": [difference - half, difference + half]}


@functools.cache
def t975(freedom: float) -> float:
    """Return the 97.5% quantile of Student's t for any degrees of freedom from 1 on, within 1e-6.

    With t = sqrt(freedom) tan(angle) its density is cos(angle)^(freedom - 1) but for a factor: Simpson's rule, bisected.
    """
    angles = np.linspace(0, 1, 2001)
    weights = np.array([1, *([4, 2] * 999), 4, 1]) / 6000
    factor = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        share = factor * middle * float(weights @ np.cos(angles * middle) ** (freedom - 1))
        low, high = (middle, high) if share < 0.475 else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def score(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Return accuracy with its Wilson interval, nll, n, and the same by class, as plain data.

    balanced_accuracy is the mean of the classes' accuracies (Brodersen et al. 2010), macro_f1 the mean of their F1 scores,
    both over classes that have images here: a class without errs in others' F1 only.
    """
    predicted = logits.argmax(1)
    right = predicted == labels
    by_class = {}
    for label, name in enumerate(class_names):
        mine = right[labels == label]
        by_class[name] = {"n": len(mine), "correct": int(mine.sum())} | _proportion(mine)
    return {
        "n": len(labels),
        "correct": int(right.sum()),
        **_proportion(right),
        **_by_class(predicted, labels, len(class_names)),
        "nll": nll(logits, labels),
        "classes": by_class,
    }


def drift(probs: np.ndarray, val_probs: np.ndarray) -> list[str]:
    """Return warnings when predictions (N, K) on new images look unlike those on validation, by class shares or confidence.

    Class shares: Pearson's chi-square of the two histograms beyond 4 standard deviations of its null distribution, and a
    total variation above 0.1. Confidence: the means further apart than 4 standard errors and 0.05. Under 50 images: silent.
    """
    if len(probs) < 50 or len(val_probs) < 50:
        return []
    warnings = []
    counts = np.stack([np.bincount(p.argmax(1), minlength=p.shape[1]) for p in (probs, val_probs)]).astype(float)
    counts = counts[:, counts.sum(0) > 0]
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), max(counts.shape[1] - 1, 1)
    shares = counts / counts.sum(1, keepdims=True)
    distance = np.abs(shares[0] - shares[1]).sum() / 2
    if (chi2 - freedom) / math.sqrt(2 * freedom) > 4 and distance > 0.1:
        warnings.append(f"class shares differ from validation's by {distance:.0%} of all images")
    new, old = probs.max(1), val_probs.max(1)
    error = math.sqrt(new.var() / len(new) + old.var() / len(old))
    gap = float(new.mean() - old.mean())
    if abs(gap) > max(4 * error, 0.05):
        warnings.append(f"mean confidence is {new.mean():.3f}, on validation {old.mean():.3f}")
    return warnings


def _by_class(predicted: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, float]:
    counts, given, correct = (
        np.bincount(values, minlength=classes) for values in (labels, predicted, labels[predicted == labels])
    )
    here = counts > 0
    recall, f1 = correct[here] / counts[here], 2 * correct[here] / (counts[here] + given[here])
    return {"balanced_accuracy": float(recall.mean()), "macro_f1": float(f1.mean())}


def _proportion(right: np.ndarray) -> dict[str, Any]:
    low, high = wilson_interval(int(right.sum()), len(right))
    return {"accuracy": float(right.mean()) if len(right) else None, "interval": [low, high]}
