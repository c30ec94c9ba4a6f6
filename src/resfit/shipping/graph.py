"""What is exported: one module from pixels to logits, so that no reader of the file has to know how images are prepared.

uint8 (N, 3, S, S) in, logits float32 (N, K) out. Logits and not probs, since their softmax is the reader's one line while
logits cannot be had back from probs, and views, ensembles and temperatures are taken on logits.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from resfit.evaluation.folding import fold
from resfit.models.winograd import Conv3x3


class Graph(nn.Module):
    """Normalisation, in float32, and a network, in the type of its weights."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.dtype = next(network.parameters()).dtype
        # as make_normalize has it: one product and one difference, so that the pixels agree to the bit
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for s in std]).view(1, -1, 1, 1))
        self.register_buffer("shift", torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K) float32 of images uint8 (N, 3, S, S)."""
        inputs = (
            images.float() * self.scale - self.shift
        )  # never in float16: its error would be the same for all pixels
        logits: Tensor = self.network(inputs.to(self.dtype))
        return logits.float()


def make_graph(
    model: nn.Module, mean: Sequence[float], std: Sequence[float], size: int, float16: bool = False
) -> Graph:
    """Return the graph of a network on the CPU in evaluation mode, each BatchNorm folded that `fold` folds.

    The model is not changed. With `float16` weights and arithmetic are float16.
    """
    network = fold(plain(model), (len(mean), size, size))
    network = network.half() if float16 else network
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return Graph(network, mean, std).eval().requires_grad_(False)


def plain(model: nn.Module) -> nn.Module:
    """Return a copy with every convolution in its direct form: Winograd's is a detour of ours that rounds differently."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, Conv3x3):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return model
