"""Optimizers by name: torch's own, fused on CUDA, foreach elsewhere, and Muon; all weights decay alike, as in the reports."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from resfit.training.precision import put_back

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, Jordan et al. 2024


def sgd(
    params: Iterable[Parameter], lr: float, weight_decay: float, momentum: float, nesterov: bool
) -> torch.optim.Optimizer:
    """Return SGD with momentum (Sutskever et al. 2013 for the Nesterov form that torch implements)."""
    every = list(params)
    made = torch.optim.SGD(
        every, lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov and momentum > 0, **form(every)
    )
    if momentum > 0:
        # torch's fused form makes them of whatever lies in memory at the first step, and an overflow leaves them so
        for p in every:
            made.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return made


def adam(
    params: Iterable[Parameter], lr: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """Return Adam, its decay added to the gradient (Kingma & Ba 2014, arXiv 1412.6980)."""
    every = list(params)
    return torch.optim.Adam(every, lr, betas=betas, weight_decay=weight_decay, **form(every))


def adamw(
    params: Iterable[Parameter], lr: float, weight_decay: float, betas: tuple[float, float]
) -> torch.optim.Optimizer:
    """Return AdamW (Loshchilov & Hutter 2017, arXiv 1711.05101)."""
    every = list(params)
    return torch.optim.AdamW(every, lr, betas=betas, weight_decay=weight_decay, **form(every))


def form(params: list[Parameter]) -> dict[str, bool]:
    """Return how torch's optimizers do their work: in one kernel on CUDA, which skips an overflow by itself, else by lists."""
    return {"fused": True} if params and params[0].is_cuda else {"foreach": True}


def muon(
    params: Iterable[Parameter],
    lr: float,
    weight_decay: float,
    momentum: float,
    nesterov: bool,
    vector_scale: float,
    vector_momentum: float,
    linear_scale: float,
    normalize: bool,
    iterations: int,
) -> torch.optim.Optimizer:
    """Return Muon for matrices and convolutions, which it reads as (out, in * k * k); what has one axis takes plain momentum.

    The latter's rate is `vector_scale` times lr, its momentum `vector_momentum`. First convolution and head are matrices here
    too, which Jordan leaves to Adam; with a `linear_scale` above 0 linear layers take plain momentum at that times lr.
    `normalize` keeps each convolution's norm at the root of its filters' number, `iterations` are Newton-Schulz's: both as in
    Jordan's airbench94_muon. lr 0.02 is a place to start, without `normalize`.
    """
    every = list(params)
    common = {"lr": lr, "weight_decay": weight_decay, "nesterov": nesterov}
    plain = common | {"orthogonal": False, "normalize": False, "momentum": vector_momentum}
    linear = [p for p in every if p.ndim == 2 and linear_scale > 0]
    matrices = [p for p in every if p.ndim > 1 and not any(p is other for other in linear)]
    groups: list[dict[str, Any]] = [
        common | {"params": matrices, "orthogonal": True, "normalize": normalize, "momentum": momentum},
        plain | {"params": linear, "lr_scale": linear_scale},
        plain | {"params": [p for p in every if p.ndim <= 1], "lr_scale": vector_scale},
    ]
    return Muon([group for group in groups if group["params"]], iterations)


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are made orthogonal (Jordan et al. 2024, "Muon", kellerjordan.github.io/posts/muon).

    As torch.optim.Muon, which refuses convolutions, but batched: one Newton-Schulz iteration for all matrices of a shape.
    An overflow of float16, `found_inf`, is skipped on the device.
    """

    _step_supports_amp_scaling = True  # GradScaler then sets found_inf, and grad_scale to None: unscaled before

    def __init__(self, groups: list[dict[str, Any]], iterations: int) -> None:
        super().__init__(groups, {})
        self.iterations = iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; a closure is not used."""
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        assert getattr(self, "grad_scale", None) is None, "unscale the gradients first"
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            buffers = [self.state[p]["momentum"] for p in params]
            values = [*params, *buffers]
            before = [] if found_inf is None else [value.clone() for value in values]
            torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
            updates = list(torch._foreach_lerp(grads, buffers, group["momentum"])) if group["nesterov"] else buffers
            if group["orthogonal"]:
                updates = orthogonal_updates(updates, self.iterations)
            decay = group["lr"] / group.get("lr_scale", 1.0) * group["weight_decay"]  # alike in both groups
            torch._foreach_mul_(params, 1 - decay)
            if group["normalize"]:
                norms = torch._foreach_norm(params)
                torch._foreach_mul_(params, [len(p) ** 0.5 / norm for p, norm in zip(params, norms, strict=True)])
            torch._foreach_add_(params, updates, alpha=-group["lr"])
            if found_inf is not None:
                put_back(values, before, found_inf > 0)


def orthogonal_updates(updates: list[Tensor], iterations: int = 5) -> list[Tensor]:
    """Return each update (out, ...) made orthogonal as (out, rest), times the root of out / rest where that is above 1."""
    flat = [update.flatten(1) for update in updates]
    shapes = {(m.shape[0], m.shape[1]) for m in flat}
    found: dict[int, Tensor] = {}
    for rows, columns in sorted(shapes):
        places = [i for i, m in enumerate(flat) if m.shape == (rows, columns)]
        made = newton_schulz(torch.stack([flat[i] for i in places]), iterations) * max(1.0, rows / columns) ** 0.5
        for matrix, place in zip(made, places, strict=True):  # in the parameter's memory format, else updates are slow
            found[place] = torch.empty_like(updates[place]).copy_(matrix.view(updates[place].shape))
    return [found[i] for i in range(len(updates))]


def newton_schulz(matrices: Tensor, steps: int = 5) -> Tensor:
    """Return (B, M, N) with singular values brought near 1 (0.7 to 1.2), in bfloat16 where the device is a GPU."""
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.transpose(1, 2) if tall else x
    found: Tensor = x.to(matrices.dtype)
    return found
