"""Optimizers by name: torch's own, in their foreach form, with every parameter of a group decayed alike, as the reports do."""

from collections.abc import Iterable

import torch
from torch.nn import Parameter


def sgd(
    params: Iterable[Parameter], lr: float, weight_decay: float, momentum: float, nesterov: bool
) -> torch.optim.Optimizer:
    """Return SGD with momentum (Sutskever et al. 2013 for the Nesterov form that torch implements)."""
    return torch.optim.SGD(
        params, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov and momentum > 0, foreach=True
    )


def adamw(
    params: Iterable[Parameter], lr: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101)."""
    return torch.optim.AdamW(params, lr, betas=betas, weight_decay=weight_decay, foreach=True)
