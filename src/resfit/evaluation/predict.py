"""Logits of many images, in batches, on the network's device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from resfit.data.batches import make_normalize
from resfit.data.rows import Images, release

VIEWS = {"none": 1, "flip": 2, "flip-shift": 6}  # how many views a prediction takes
BATCH = 500  # large enough to fill two cores or a GPU, small enough for 200-pixel images in 2 GB


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    images: Tensor | Images,
    mean: Sequence[float],
    std: Sequence[float],
    tta: str = "none",
    tta_below: float = 1.0,
    batch_size: int = BATCH,
) -> np.ndarray:
    """Return logits (N, K) float32 of uint8 images (N, 3, H, W); the model is left in the mode it was in.

    With test-time augmentation they are the weighted mean over the views of `tta`, a key of VIEWS. With `tta_below` under 1
    only images whose largest probability without it is lower have their other views seen. A bound, not a share of the least
    certain images: an answer must not depend on which others are asked about.
    """
    device = next(model.parameters()).device
    normalize = make_normalize(mean, std, device)
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        if not isinstance(batch, Tensor):
            batch = torch.from_numpy(np.array(batch))  # a copy: a memory-mapped cache is read-only
        if not isinstance(images, Tensor):
            release(images)
        inputs = normalize(batch.to(device))
        parts.append(_answer(model, inputs, tta, tta_below))
    model.train(was_training)
    return torch.cat(parts).cpu().numpy()


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


def _answer(model: nn.Module, inputs: Tensor, tta: str, tta_below: float) -> Tensor:
    logits: Tensor = model(inputs).float()
    if tta == "none":
        return logits
    if tta_below >= 1:
        return _mean(model, inputs, logits, tta)
    unsure = logits.softmax(1).amax(1) < tta_below
    if unsure.any():
        logits[unsure] = _mean(model, inputs[unsure], logits[unsure], tta)
    return logits


def _mean(model: nn.Module, inputs: Tensor, logits: Tensor, tta: str) -> Tensor:
    (share, _), *others = views(inputs, tta)  # the first is the image itself
    parts = [share * logits, *(weight * model(view).float() for weight, view in others)]
    return torch.stack(parts).sum(0)
