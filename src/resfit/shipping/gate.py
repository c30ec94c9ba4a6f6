"""The gates of an export: how far it may be from the PyTorch network it was made of. numpy values in, a verdict out.

The bounds are stated here and nowhere else. An export that breaks one is not written.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bounds:
    """What a precision is held to; None where it is not.

    agreement: the least fraction of images with the same largest logit. difference: what the largest difference of a logit
    stays below; images whose two logits in question are closer than that count as agreeing. loss: the most accuracy, a
    fraction, that may be lost.
    """

    agreement: float | None = None
    difference: float | None = None
    loss: float | None = None


BOUNDS = {
    "float32": Bounds(agreement=1.0, difference=1e-4),
    "float16": Bounds(agreement=0.999, loss=0.001),
    "int8": Bounds(loss=0.005),
}
ROUNDING = 1e-9  # of a fraction of images


@dataclass(frozen=True)
class Parity:
    """An export beside its network on the same n images: accuracy, both fractions, agreement, largest difference of a logit.

    wrong says which bound is broken, "" where none is; max_difference is None where a logit is not finite.
    """

    n: int
    accuracy: float
    network_accuracy: float
    agreement: float
    max_difference: float | None
    wrong: str

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        names = ("n", "accuracy", "network_accuracy", "agreement", "max_difference")
        return {name: getattr(self, name) for name in names}


def compare(logits: np.ndarray, network_logits: np.ndarray, labels: np.ndarray, precision: str) -> Parity:
    """Compare an export's logits (N, K) with the network's, labels (N,), under the bounds of a key of BOUNDS."""
    n, bounds = len(labels), BOUNDS[precision]
    accuracy = float((logits.argmax(1) == labels).mean())
    network_accuracy = float((network_logits.argmax(1) == labels).mean())
    finite = bool(np.isfinite(logits).all() and np.isfinite(network_logits).all())
    difference = float(np.abs(logits - network_logits).max()) if finite else None
    same = _same(logits, network_logits, bounds.difference or 0.0)
    agreement = float(same.mean())
    lost = network_accuracy - accuracy
    if difference is None:
        wrong = "a logit is not finite"
    elif bounds.agreement is not None and agreement < bounds.agreement - ROUNDING:
        changed = n - int(same.sum())
        wrong = f"{changed:,} of {n:,} predictions differ, which is more than {1 - bounds.agreement:.1%}"
    elif bounds.difference is not None and difference >= bounds.difference:
        wrong = f"a logit differs by {difference:.2g}, which is not below {bounds.difference:g}"
    elif bounds.loss is not None and lost > bounds.loss + ROUNDING:
        both = f"{network_accuracy:.2%} to {accuracy:.2%} of {n:,}"
        wrong = f"{100 * lost:.2f} points of accuracy are lost ({both}), which is more than {100 * bounds.loss:.1f}"
    else:
        wrong = ""
    return Parity(n, accuracy, network_accuracy, agreement, difference, wrong)


def _same(logits: np.ndarray, network_logits: np.ndarray, tie: float) -> np.ndarray:
    """Return (N,) bool: the same largest logit, or another one that the network has less than `tie` below its largest."""
    rows, theirs = np.arange(len(logits)), logits.argmax(1)
    gap = network_logits.max(1) - network_logits[rows, theirs]
    return np.asarray((network_logits.argmax(1) == theirs) | (gap < tie))
