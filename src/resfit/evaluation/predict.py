"""Logits of many images, in batches, on the network's device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from resfit.data.batches import make_normalize

BATCH = 500  # large enough to fill two cores or a GPU, small enough for 200-pixel images in 2 GB


@torch.inference_mode()
def predict_logits(
    model: nn.Module, images: Tensor | np.ndarray, mean: Sequence[float], std: Sequence[float], batch_size: int = BATCH
) -> np.ndarray:
    """Return logits (N, K) float32 of uint8 images (N, 3, H, W); the model is left in the mode it was in."""
    device = next(model.parameters()).device
    normalize = make_normalize(mean, std, device)
    was_training = model.training
    model.eval()
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        if isinstance(batch, np.ndarray):
            batch = torch.from_numpy(np.array(batch))  # a copy: a memory-mapped cache is read-only
        parts.append(model(normalize(batch.to(device))).float())
    model.train(was_training)
    return torch.cat(parts).cpu().numpy()
