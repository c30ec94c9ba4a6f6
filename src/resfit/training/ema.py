"""The exponential moving average of weights and BatchNorm statistics.

Polyak & Juditsky 1992; as a teacher: Tarvainen & Valpola 2017, arXiv 1703.01780.
"""

import torch
from torch import Tensor, nn


def start_average(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every parameter and buffer, to be averaged from here on."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def update_average(
    average: dict[str, Tensor], model: nn.Module, decay: float, step: int, skipped: Tensor | None = None
) -> None:
    """Move `average` towards the model after the 0-based `step`; early the decay is lower, so that the start is forgotten.

    Where `skipped` () bool, on the device, says that the step made no update, the average stays too.
    """
    now = model.state_dict()
    weight = 1 - min(decay, (1 + step) / (10 + step))
    names = [name for name, value in average.items() if value.is_floating_point()]
    old, new = [average[name] for name in names], [now[name] for name in names]
    if skipped is None:
        torch._foreach_lerp_(old, new, weight)
    else:
        torch._foreach_lerp_(old, new, [torch.where(skipped, 0.0, weight)] * len(old))
    for name in average.keys() - set(names):  # BatchNorm's count of batches
        average[name].copy_(now[name])
