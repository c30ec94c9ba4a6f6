"""Labels beside predictions: the confusion matrix, the most confident mistakes, and labels that are likely wrong. No torch.

Northcutt, Jiang, Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", arXiv 1911.00068.
"""

import numpy as np


def confusion(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return how many images of each class were taken for each, int64 (classes, classes): rows true, columns predicted."""
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return np.asarray(flat.reshape(classes, classes))


def confident_mistakes(probs: np.ndarray, labels: np.ndarray, most: int = 24) -> np.ndarray:
    """Return the rows of wrongly predicted images, int64, the most confident first; probs (N, K), labels (N,)."""
    wrong = np.flatnonzero(probs.argmax(1) != labels)
    return np.asarray(wrong[np.argsort(-probs[wrong].max(1), kind="stable")][:most])


def label_issues(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which labels confident learning takes for wrong, bool (N,); probs (N, K) of images not trained on.

    A class's threshold is the mean probability that its own images give it. An image is confidently of the most probable class
    among those whose threshold it reaches; where that is not its label, the label is suspected (the off-diagonal of the
    confident joint).
    """
    count, classes = probs.shape
    own = probs[np.arange(count), labels].astype(np.float64)
    sizes = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own, classes)
    thresholds = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)  # no image to tell by: never confident
    reached = np.where(probs >= thresholds, probs, -1.0)
    return np.asarray((reached.max(1) >= 0) & (reached.argmax(1) != labels))


def suspicious(probs: np.ndarray, labels: np.ndarray, most: int = 10) -> np.ndarray:
    """Return the rows of the most suspicious labels, int64: those of `label_issues` by the label's own probability, low first.

    Where there are fewer, wrongly predicted images follow in the same order.
    """
    own = probs[np.arange(len(labels)), labels]
    issue, wrong = label_issues(probs, labels), probs.argmax(1) != labels
    order = np.lexsort((own, ~issue))
    return np.asarray(order[(issue | wrong)[order]][:most])


def balance(labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, int]:
    """Return how many images each class has, by name."""
    counts = np.bincount(labels, minlength=len(class_names)).tolist()
    return dict(zip(class_names, counts, strict=True))
