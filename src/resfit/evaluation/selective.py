"""How right a network is that may abstain: accuracy on the images it is surest of, and the area under its curve of risks.

Geifman, El-Yaniv 2017, "Selective Classification for Deep Neural Networks", arXiv 1705.08500; the area (AURC): Geifman, Uziel,
El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", arXiv 1805.08206. No torch.
"""

from typing import Any

import numpy as np

POINTS = 100  # of the curve at most


def selective(probs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return aurc and points {coverage, threshold, accuracy}, from the surest images to all of them.

    probs: (N, K); labels: (N,). A point answers every image whose confidence is `threshold` or more: `coverage` of all,
    `accuracy` of those right. aurc is the mean, over numbers of answered images from 1 to N, of the share that is wrong;
    images of equal confidence count as in random order.
    """
    confidence, wrong = probs.max(1), (probs.argmax(1) != labels).astype(np.float64)
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], wrong[order]
    ends = np.append(np.flatnonzero(np.diff(confidence)), len(confidence) - 1)  # the last image of each confidence
    sizes = np.diff(np.append(-1, ends))
    sums = np.diff(np.append(0, np.cumsum(wrong)[ends]))
    expected = np.cumsum(np.repeat(sums / sizes, sizes))
    count = len(confidence)
    wanted = np.unique(np.ceil(np.linspace(0, 1, POINTS + 1)[1:] * count).astype(int)) - 1
    chosen = np.unique(ends[np.searchsorted(ends, wanted)])
    points = [
        {
            "coverage": float(end + 1) / count,
            "threshold": float(confidence[end]),
            "accuracy": float(1 - wrong[: end + 1].mean()),
        }
        for end in chosen
    ]
    return {"aurc": float((expected / np.arange(1, count + 1)).mean()), "points": points}
