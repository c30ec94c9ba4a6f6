"""Augmentations of whole batches, on the images' device: `(images, keys, **params) -> images`, draws from each image's key.

Crop and flip: Krizhevsky 2012; with padding as in He et al. 2015 (arXiv 1512.03385). Cutout: DeVries, Taylor 2017, "Improved
regularization of convolutional neural networks with cutout" (arXiv 1708.04552). Erasing: Zhong et al. 2017, "Random erasing
data augmentation" (arXiv 1708.04896). Both come before normalisation here: their fill is a level of uint8, black unless the
recipe says otherwise, where DeVries and Taylor fill with zeros after it, which is the data's mean.
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


def cutout(images: Tensor, keys: Tensor, size: int, fill: int) -> Tensor:
    """Return images (N, C, H, W), each with a square of `size` pixels filled, its centre uniform over the image.

    The square is clipped at the border, as in the paper.
    """
    height, width = images.shape[2:]
    top = integers(keys, 0, height) - size // 2
    left = integers(keys, 1, width) - size // 2
    return _fill(images, top, left, top + size, left + size, fill)


def erasing(
    images: Tensor, keys: Tensor, probability: float, area: tuple[float, float], ratio: tuple[float, float], fill: int
) -> Tensor:
    """Return images (N, C, H, W), each with `probability` a rectangle filled, that lies wholly within it.

    Its share of the area is uniform in `area`, its ratio of height to width log-uniform in `ratio`. The paper draws the ratio
    uniformly, and draws again while the rectangle does not fit; here the ratio is drawn among those that fit.
    """
    height, width = images.shape[2:]
    share = area[0] + (area[1] - area[0]) * uniform(keys, 1)
    pixels = share * height * width
    low = (pixels / width**2).clamp(min=ratio[0]).log()
    high = (height**2 / pixels).clamp(max=ratio[1]).log()
    root = (low + (high - low) * uniform(keys, 2)).mul(0.5).exp()
    rows = (pixels.sqrt() * root).round().clamp(1, height)
    columns = (pixels.sqrt() / root).round().clamp(1, width)
    top = (uniform(keys, 3) * (height - rows + 1)).floor().minimum(height - rows)
    left = (uniform(keys, 4) * (width - columns + 1)).floor().minimum(width - columns)
    rows = torch.where(uniform(keys, 0) < probability, rows, 0)
    return _fill(images, top, left, top + rows, left + columns, fill)


def _fill(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor, fill: int) -> Tensor:
    """Return images with rows top..bottom and columns left..right, each bound (N,) and its end excluded, set to `fill`."""
    rows, columns = (torch.arange(side, device=images.device) for side in images.shape[2:])
    down = (rows >= top[:, None]) & (rows < bottom[:, None])
    across = (columns >= left[:, None]) & (columns < right[:, None])
    inside = (down[:, :, None] & across[:, None, :])[:, None]
    return images * ~inside + inside.to(images.dtype) * fill  # on a CPU far quicker than masked_fill


def _offsets(keys: Tensor, draw: int, padding: int, size: int) -> Tensor:
    start = integers(keys, draw, 2 * padding + 1) - padding
    return start[:, None] + torch.arange(size, device=keys.device)


def _reflect(position: Tensor, size: int) -> Tensor:
    period = 2 * (size - 1)
    position = position.abs() % period
    return torch.where(position < size, position, period - position)
