"""Logits of many images, in batches, on the network's device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from resfit.data.batches import make_normalize
from resfit.data.rows import Images, release

BATCH = 500  # images at once: enough to fill two cores or a GPU
PIXELS = 2**21  # and no more of them than this, whatever their size: a map 64 wide then takes half a gigabyte


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    images: Tensor | Images,
    mean: Sequence[float],
    std: Sequence[float],
    tta: str = "none",
    tta_below: float = 1.0,
) -> np.ndarray:
    """Return logits (N, K) float32 of uint8 images (N, 3, H, W); the model is left in the mode it was in.

    With test-time augmentation they are the weighted mean over the views of `tta`, a key of VIEWS. With `tta_below` under 1
    only images whose largest probability without it is lower have their other views seen. A bound, not a share of the least
    certain images: an answer must not depend on which others are asked about.
    """
    device = next(model.parameters()).device
    normalize = make_normalize(mean, std, device)
    batch_size = images_at_once(images.shape[-1])
    was_training = model.training
    model.eval()

    def inputs(rows: "slice | Tensor") -> Tensor:
        if isinstance(images, Tensor):
            some = images[rows if isinstance(rows, slice) else rows.to(images.device)]
            return normalize(some.to(device))
        batch = torch.from_numpy(np.array(images[rows if isinstance(rows, slice) else rows.numpy()]))
        release(images)  # what was copied, since a memory-mapped cache is read-only
        return normalize(batch.to(device))

    everywhere = tta_below >= 1
    parts = []
    for start in range(0, len(images), batch_size):
        batch = inputs(slice(start, start + batch_size))
        plain: Tensor = model(batch).float()
        parts.append(_mean(model, batch, plain, tta) if everywhere else plain)
    logits = torch.cat(parts)
    if tta != "none" and not everywhere:
        unsure = torch.nonzero(logits.softmax(1).amax(1) < tta_below)[:, 0]  # gathered, so that batches are full
        for start in range(0, len(unsure), batch_size):
            rows = unsure[start : start + batch_size]
            logits[rows] = _mean(model, inputs(rows.cpu()), logits[rows], tta)
    model.train(was_training)
    return logits.cpu().numpy()


def images_at_once(side: int) -> int:
    """Return how many images of `side` by `side` pixels the network is given at once."""
    return max(1, min(BATCH, PIXELS // side**2))


def views(inputs: Tensor, tta: str) -> list[tuple[float, Tensor]]:
    """Return the weighted views (weight, (N, C, H, W)) of normalised images that a prediction averages; weights add to 1.

    "flip" adds the mirror image; "flip-shift" also both images moved by one pixel to the upper left and the lower right, with
    reflected edges, half the weight staying with the unmoved ones (Jordan 2024, arXiv 2404.00498).
    """
    if tta == "none":
        return [(1.0, inputs)]
    if tta == "flip":
        return [(0.5, inputs), (0.5, inputs.flip(-1))]
    size = inputs.shape[-1]
    padded = pad(inputs, (1, 1, 1, 1), "reflect")
    moved = [padded[:, :, :size, :size], padded[:, :, 2:, 2:]]
    shares = [(0.25, inputs), *((0.125, view) for view in moved)]
    return [(share, side) for share, view in shares for side in (view, view.flip(-1))]


def _mean(model: nn.Module, inputs: Tensor, plain: Tensor, tta: str) -> Tensor:
    """Return the weighted mean of the views' logits; `plain` are those of the first, the images themselves."""
    (share, _), *others = views(inputs, tta)
    if not others:
        return plain
    parts = [share * plain, *(weight * model(view).float() for weight, view in others)]
    return torch.stack(parts).sum(0)
