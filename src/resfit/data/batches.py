"""The order of images and the keys of their draws, as pure functions of the seed: no generator state to save or spin forward.

Keys are hashed with SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") in wrapping int64.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64


def derive(seed: int, *parts: int | str) -> int:
    """Return a 63-bit integer that is a hash of the seed and of what it is for, e.g. `derive(0, 3, "order")`."""
    digest = hashlib.blake2b(repr((seed, *parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the permutation (count,) int64, on the CPU, in which an epoch visits the images."""
    generator = torch.Generator().manual_seed(derive(seed, epoch, "order"))
    return torch.randperm(count, generator=generator)


def image_keys(seed: int, epoch: int, index: Tensor, purpose: str) -> Tensor:
    """Return a key (N,) int64 for each image of `index` (N,) int64: the same whatever the batch it comes in."""
    return mix(index * _GOLDEN + derive(seed, epoch, purpose))


def uniform(keys: Tensor, draw: int) -> Tensor:
    """Return the draw number `draw` of each key, (N,) float32 in [0, 1)."""
    bits = _shift(mix(keys + _wrap(_GOLDEN * (draw + 1))), 40)
    return bits.to(torch.float32) * 2**-24


def integers(keys: Tensor, draw: int, count: int) -> Tensor:
    """Return the draw number `draw` of each key, (N,) int64 in [0, count); count is far below 2**24."""
    return (uniform(keys, draw) * count).long().clamp_(max=count - 1)


def make_normalize(mean: Sequence[float], std: Sequence[float], device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the map from uint8 (N, 3, H, W) to float32, channels last: less the mean, over the std of pixels in [0, 1].

    Its constants are put on the device once, so that a step copies nothing there.
    """
    scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, -1, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, -1, 1, 1)

    def normalize(images: Tensor) -> Tensor:
        return images.to(torch.float32, memory_format=torch.channels_last).mul_(scale).sub_(shift)

    return normalize


def mix(keys: Tensor) -> Tensor:
    """Return SplitMix64's finalizer of each key, int64 in, int64 out, wrapping."""
    keys = (keys ^ _shift(keys, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    keys = (keys ^ _shift(keys, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return keys ^ _shift(keys, 31)


def _shift(keys: Tensor, bits: int) -> Tensor:
    return (keys >> bits) & ((1 << (64 - bits)) - 1)  # >> of int64 copies the sign bit


def _wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63
