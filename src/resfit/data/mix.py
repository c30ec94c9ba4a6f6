"""Mixing of labelled images: `(inputs, targets, generator, **params) -> (inputs, targets)`, one draw a batch.

A batch is in random order already, so each image's partner is the one as far from the batch's other end; the papers permute.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from resfit.data.batches import derive
from resfit.plugins import function

Mix = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]


def make_mix(mixes: Mapping[str, Mapping[str, Any]], classes: int) -> Mix:
    """Return `(inputs (N, C, H, W) float, labels (N,), seed, step) -> (inputs, targets (N, classes))` of a recipe's mixes.

    A step applies one of them or none: each with its probability, the draws being a function of (seed, step).
    """
    lines: list[tuple[float, Callable[..., tuple[Tensor, Tensor]], dict[str, Any]]] = []
    for name, params in mixes.items():
        probability: float = params["probability"]
        own = {key: value for key, value in params.items() if key != "probability"}
        lines.append((probability, function("mixes", name), own))

    def mix(inputs: Tensor, labels: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        generator = np.random.default_rng(derive(seed, step, "mix"))
        targets = one_hot(labels, classes).to(inputs.dtype)
        left = generator.random()
        for probability, apply, params in lines:
            if left < probability:
                return apply(inputs, targets, generator, **params)
            left -= probability
        return inputs, targets

    return mix


def mixup(inputs: Tensor, targets: Tensor, generator: np.random.Generator, alpha: float) -> tuple[Tensor, Tensor]:
    """Return convex combinations of images and of targets, their share drawn from Beta(alpha, alpha).

    Zhang et al. 2017, "mixup", arXiv 1710.09412.
    """
    share = generator.beta(alpha, alpha)
    return torch.lerp(inputs.flip(0), inputs, share), torch.lerp(targets.flip(0), targets, share)


def cutmix(inputs: Tensor, targets: Tensor, generator: np.random.Generator, alpha: float) -> tuple[Tensor, Tensor]:
    """Return images with one rectangle of their partner's pixels, and targets mixed by the area that each really has.

    The kept share is drawn from Beta(alpha, alpha), the rectangle's centre evenly; it is cut at the border. Yun et al. 2019,
    "CutMix", arXiv 1905.04899.
    """
    height, width = inputs.shape[2:]
    side = float(1 - generator.beta(alpha, alpha)) ** 0.5
    row, column = int(generator.integers(height)), int(generator.integers(width))
    high, wide = int(height * side), int(width * side)
    top, left = max(row - high // 2, 0), max(column - wide // 2, 0)
    bottom, right = min(row + high // 2, height), min(column + wide // 2, width)
    mixed = inputs.clone()
    mixed[:, :, top:bottom, left:right] = inputs.flip(0)[:, :, top:bottom, left:right]
    share = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(targets.flip(0), targets, share)
