"""Augmentations of whole batches, on the images' device: `(images, keys, **params) -> images`, draws from each image's key.

Crop and flip: Krizhevsky 2012; with padding as in He et al. 2015 (arXiv 1512.03385).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from resfit.data.batches import image_keys, integers, uniform
from resfit.plugins import function, technique

Augment = Callable[[Tensor, Tensor, int, int], Tensor]


def make_augment(steps: Mapping[str, Mapping[str, Any]]) -> Augment:
    """Return `(images (N, C, H, W), index (N,), seed, epoch) -> images`, which applies a recipe's augmentations in order."""
    lines = [(name, technique("augmentations", name).by_epoch, dict(params)) for name, params in steps.items()]
    functions = [(*line, function("augmentations", line[0])) for line in lines]

    def augment(images: Tensor, index: Tensor, seed: int, epoch: int) -> Tensor:
        for name, by_epoch, params, apply in functions:
            if by_epoch:
                images = apply(images, image_keys(seed, 0, index, name), epoch=epoch, **params)
            else:
                images = apply(images, image_keys(seed, epoch, index, name), **params)
        return images

    return augment


def crop(images: Tensor, keys: Tensor, padding: int, mode: str) -> Tensor:
    """Return images (N, C, H, W) of any dtype, each cut at its own place from itself padded by `padding` pixels.

    mode "zeros" pads with zeros, "reflect" mirrors without repeating the edge.
    """
    count, channels, height, width = images.shape
    rows = _offsets(keys, 0, padding, height)
    columns = _offsets(keys, 1, padding, width)
    inside = None
    if mode == "zeros":
        inside = (((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :])[
            :, None
        ]
    rows, columns = _reflect(rows, height), _reflect(columns, width)
    flat = (rows[:, :, None] * width + columns[:, None, :]).view(count, 1, height * width)
    taken = images.reshape(count, channels, height * width).gather(2, flat.expand(-1, channels, -1))
    taken = taken.view(count, channels, height, width)
    return taken if inside is None else taken * inside


def flip(images: Tensor, keys: Tensor) -> Tensor:
    """Return images (N, C, H, W), each mirrored left to right with probability one half."""
    mirrored = (uniform(keys, 0) < 0.5)[:, None, None, None]
    return torch.where(mirrored, images.flip(-1), images)


def alternating_flip(images: Tensor, keys: Tensor, epoch: int) -> Tensor:
    """Return images (N, C, H, W), half of them mirrored in even epochs and the other half in odd ones, by the images' own keys.

    Jordan 2024, "94% on CIFAR-10 in 3.29 seconds", arXiv 2404.00498.
    """
    mirrored = (uniform(keys, 0) < 0.5)[:, None, None, None]
    return torch.where(mirrored ^ bool(epoch % 2), images.flip(-1), images)


def _offsets(keys: Tensor, draw: int, padding: int, size: int) -> Tensor:
    start = integers(keys, draw, 2 * padding + 1) - padding
    return start[:, None] + torch.arange(size, device=keys.device)


def _reflect(position: Tensor, size: int) -> Tensor:
    period = 2 * (size - 1)
    position = position.abs() % period
    return torch.where(position < size, position, period - position)
