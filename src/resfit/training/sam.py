"""Sharpness-aware minimisation: the gradient is taken where the loss nearby is highest.

SAM: Foret et al. 2020, arXiv 2010.01412. ASAM, which measures nearness in each weight's own scale: Kwon et al. 2021, arXiv
2102.11600. Each step costs two passes; BatchNorm's statistics follow the first one only.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

ETA = 0.01  # ASAM's share of the scale that even a weight of 0 has


@contextlib.contextmanager
def climbed(model: nn.Module, rho: float, adaptive: bool) -> Iterator[None]:
    """Move the weights up their gradients by `rho` for the body, and put exactly the old ones back; statistics stand still."""
    params: list[Tensor] = [p for p in model.parameters() if p.grad is not None]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        old = [p.clone() for p in params]
        torch._foreach_add_(params, ascent(params, rho, adaptive))
        for norm in norms:
            norm.momentum = 0.0
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(params, old)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def ascent(params: list[Tensor], rho: float, adaptive: bool) -> list[Tensor]:
    """Return how far each weight moves up its gradient: rho g / |g|, or with scales T = |w| + eta, rho T^2 g / |T g|."""
    steps = [p.grad for p in params if p.grad is not None]
    scales = torch._foreach_add(torch._foreach_abs(params), ETA) if adaptive else None
    if scales is not None:
        steps = list(torch._foreach_mul(steps, scales))
    length = torch.stack(torch._foreach_norm(steps)).norm().clamp_min(1e-12)
    if scales is not None:
        steps = list(torch._foreach_mul(steps, scales))
    return list(torch._foreach_mul(steps, rho / length))
