"""Training-free scores of a network: what its random weights say about it before it is trained. Larger is better.

naswot: Mellor et al. 2020, "Neural architecture search without training", arXiv 2006.04647. synflow: Tanaka et al. 2020,
"Pruning neural networks without any data by iteratively conserving synaptic flow", arXiv 2006.05467. grad_norm: Abdelfattah et
al. 2021, "Zero-cost proxies for lightweight NAS", arXiv 2101.08134. We depart from them in the images, which are random
numbers, so that no data is needed.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from resfit.models.families import build
from resfit.models.spec import ModelSpec

IMAGES = 64


def score_network(spec: ModelSpec, seed: int = 0) -> dict[str, float]:
    """Build a network and return its scores: {"naswot", "synflow", "grad_norm"}.

    Weights, images and labels come from `seed`: float32 normal numbers (64, channels, side, side), as normalised images are.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(IMAGES, spec.channels, spec.image_size, spec.image_size, generator=generator)
    labels = torch.randint(0, spec.classes, (IMAGES,), generator=generator)
    return {
        "naswot": naswot(build(spec, seed), images),
        "synflow": synflow(build(spec, seed), images),
        "grad_norm": grad_norm(build(spec, seed), images, labels),
    }


@torch.no_grad()
def naswot(model: nn.Module, images: Tensor) -> float:
    """Return log |det K|, where K[i, j] counts the ReLUs that are both on or both off for images i and j."""
    with _Relus(len(images)) as relus:
        model.train()(images)
    return float(torch.linalg.slogdet(relus.kernel).logabsdet)


def synflow(model: nn.Module, images: Tensor) -> float:
    """Return log of the sum of |weight * dR/dweight|, R the outputs' sum for an image of ones, every weight its absolute value.

    BatchNorms, which would undo it, are in evaluation mode: new ones then change nothing.
    """
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    weights = list(model.parameters())
    slopes = torch.autograd.grad(model(torch.ones_like(images[:1], dtype=torch.float64)).sum(), weights)
    return math.log(sum(float((w * slope).detach().abs().sum()) for w, slope in zip(weights, slopes, strict=True)))


def grad_norm(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum, over weights of convolutions and linear layers, of the norm of the gradient of the mean loss."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    slopes = torch.autograd.grad(F.cross_entropy(model.train()(images), labels), weights)
    return float(sum(slope.norm() for slope in slopes))


class _Relus(TorchFunctionMode):
    """Adds up, ReLU by ReLU, on how many numbers (N, features) two images are both let through or both not: `kernel` (N, N)."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.kernel = torch.zeros(images, images, dtype=torch.float64)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_):
            codes = (out > 0).flatten(1).double()  # kept for no longer: of large images they would fill the memory
            self.kernel += codes @ codes.T + (1 - codes) @ (1 - codes).T
        return out
