"""Images made worse in twelve ways at five strengths: how well does a network hold? No torch.

Hendrycks, Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", arXiv 1903.12261,
with the strengths that its authors published for 32-pixel images (CIFAR-10-C). Departures: values are rounded to uint8, not cut
off; what is drawn follows from an image's key, so that it does not depend on the others; seven of their nineteen are left out
(glass, zoom, snow, frost, elastic, spatter, speckle). Images of another size S: lengths (sigma, radius, steps of a motion) are
multiplied by S / 32, so that a blur covers the same share of the picture; above 32, pixelate's share of the side is divided by
sqrt(S / 32), near what they published for 224; noise, tone, fog's depth and JPEG's quality stay as they are.
"""

import io
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

SIDE = 32  # pixels, that the strengths are for
STRENGTHS = (1, 2, 3, 4, 5)
_CHUNK = 2**22  # values at once


def corrupt(images: np.ndarray, keys: np.ndarray, name: str, strength: int) -> np.ndarray:
    """Return images with one corruption, a key of CORRUPTIONS, at a strength of 1 to 5: uint8 (N, 3, S, S), as given.

    keys: uint64 (N,), from which what is drawn for each image follows.
    """
    made = np.empty_like(images)
    apply, parameters = CORRUPTIONS[name]
    size = max(1, _CHUNK // math.prod(images.shape[1:]))
    for start in range(0, len(images), size):
        here = slice(start, start + size)
        draws = [np.random.default_rng([zlib.crc32(name.encode()), strength, int(key)]) for key in keys[here]]
        made[here] = apply(images[here], draws, parameters[strength - 1])
    return made


Draws = Sequence[np.random.Generator]  # one an image


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


def _gaussian_noise(images: np.ndarray, draws: Draws, sigma: float) -> np.ndarray:
    noise = np.stack([draw.normal(0, sigma, images.shape[1:]) for draw in draws])
    return _to_uint8(images / 255 + noise)


def _shot_noise(images: np.ndarray, draws: Draws, photons: float) -> np.ndarray:
    """Photons of a pixel counted, `photons` of them for white."""
    counts = np.stack([draw.poisson(image / 255 * photons) for draw, image in zip(draws, images, strict=True)])
    return _to_uint8(counts / photons)


def _impulse_noise(images: np.ndarray, draws: Draws, share: float) -> np.ndarray:
    """A share of all values becomes 0 or 255, either as often."""
    drawn = np.stack([draw.random((2, *images.shape[1:])) for draw in draws])
    return np.where(drawn[:, 0] < share, np.where(drawn[:, 1] < 0.5, np.uint8(255), np.uint8(0)), images)


def _gaussian_blur(images: np.ndarray, draws: Draws, sigma: float) -> np.ndarray:
    sigma *= images.shape[-1] / SIDE
    kernel = _gaussian(sigma, int(4 * sigma + 0.5))
    values = _along(images / 255, kernel, 2, "edge")
    return _to_uint8(_along(values, kernel, 3, "edge"))


def _gaussian(sigma: float, radius: int) -> np.ndarray:
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-(steps**2) / (2 * sigma**2))
    return np.asarray(kernel / kernel.sum())


def _along(values: np.ndarray, kernel: np.ndarray, axis: int, mode: Any) -> np.ndarray:
    """Correlate with a kernel of odd length along one axis of (N, 3, S, S)."""
    radius, size = len(kernel) // 2, values.shape[axis]
    padded = np.pad(values, [(radius, radius) if i == axis else (0, 0) for i in range(4)], mode)
    rows = [slice(None)] * 4
    total = np.zeros(values.shape)
    for step, weight in enumerate(kernel):
        rows[axis] = slice(step, step + size)
        total += weight * padded[tuple(rows)]
    return total


def disk(radius: float, sigma: float, scale: float) -> np.ndarray:
    """Return the kernel of a lens out of focus, (2R + 1, 2R + 1), sum 1: a disk whose edge is smoothed by a Gaussian.

    Lengths are those for 32 pixels; `scale` multiplies them. The Gaussian reaches one pixel of 32, as published.
    """
    reach = max(1, round(scale))
    half = math.ceil(radius * scale) + reach
    steps = np.arange(-half, half + 1)
    inside = (steps[:, None] ** 2 + steps**2 <= (radius * scale) ** 2).astype(float)
    smooth = _gaussian(sigma * scale, reach)
    for axis in (2, 3):
        inside = _along(inside[None, None] if inside.ndim == 2 else inside, smooth, axis, "constant")
    return np.asarray(inside[0, 0] / inside.sum())


def _defocus_blur(images: np.ndarray, draws: Draws, lens: tuple[float, float]) -> np.ndarray:
    size = images.shape[-1]
    kernel = disk(*lens, size / SIDE)
    radius = len(kernel) // 2
    radius = min(radius, size - 1)  # what a reflection can bring
    kernel = kernel[(s := slice(len(kernel) // 2 - radius, len(kernel) // 2 + radius + 1)), s]
    padded = np.pad(images / 255, [(0, 0), (0, 0), (radius, radius), (radius, radius)], "reflect")
    total = np.zeros(images.shape)
    for y, x in zip(*np.nonzero(kernel), strict=True):
        total += kernel[y, x] * padded[:, :, y : y + size, x : x + size]
    return _to_uint8(total / kernel.sum())


def _motion_blur(images: np.ndarray, draws: Draws, motion: tuple[float, float]) -> np.ndarray:
    """The mean of 2 radius + 1 places along a line at -45 to 45 degrees, weighted by half a Gaussian, as ImageMagick's."""
    count, _, size, _ = images.shape
    radius, sigma = (length * size / SIDE for length in motion)
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angles = np.radians([draw.uniform(-45, 45) for draw in draws])
    place, image = np.arange(size), np.arange(count)[:, None, None, None]
    channel = np.arange(3)[None, :, None, None]
    total = np.zeros(images.shape)
    for step, weight in zip(steps, weights, strict=True):
        across, down = (np.ceil(step * side - 0.5).astype(int)[:, None] for side in (np.cos(angles), np.sin(angles)))
        rows, columns = np.clip(place + down, 0, size - 1), np.clip(place + across, 0, size - 1)
        total += weight * images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
    return _to_uint8(total / 255)


def plasma(draws: Draws, size: int, decay: float) -> np.ndarray:
    """Return clouds in [0, 1], (N, M, M) with M the power of two from `size` on, by the diamond-square algorithm on a torus.

    Fournier, Fussell, Carpenter 1982, "Computer rendering of stochastic models". Midpoints are the mean of four neighbours
    and a uniform draw of +-w^2, where w is 100 at first and falls by `decay` from one halving to the next.
    """
    side = step = 1 << (size - 1).bit_length()
    field, swing = np.zeros((len(draws), side, side)), 100.0

    def midpoints(neighbours: np.ndarray) -> np.ndarray:
        drawn = np.stack([draw.uniform(-swing, swing, neighbours.shape[1:]) for draw in draws])
        return np.asarray(neighbours / 4 + swing * drawn)

    while step >= 2:
        half = step // 2
        corners = field[:, ::step, ::step]
        square = corners + np.roll(corners, -1, 1)
        field[:, half::step, half::step] = midpoints(square + np.roll(square, -1, 2))
        middles = field[:, half::step, half::step]
        above = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 2)
        field[:, ::step, half::step] = midpoints(above)
        beside = middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        field[:, half::step, ::step] = midpoints(beside)
        step, swing = half, swing / decay
    field -= field.min((1, 2), keepdims=True)
    return np.asarray(field / np.maximum(field.max((1, 2), keepdims=True), 1e-12))


def _fog(images: np.ndarray, draws: Draws, depth: tuple[float, float]) -> np.ndarray:
    amount, decay = depth
    size, values = images.shape[-1], images / 255
    clouds = plasma(draws, size, decay)[:, None, :size, :size]
    most = values.max((1, 2, 3), keepdims=True)
    return _to_uint8((values + amount * clouds) * most / (most + amount))


def _brightness(images: np.ndarray, draws: Draws, more: float) -> np.ndarray:
    """More value in HSV; hue and saturation stay."""
    values = images / 255
    value = values.max(1, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    return _to_uint8(np.where(value > 0, values * raised / np.where(value > 0, value, 1), raised))


def _contrast(images: np.ndarray, draws: Draws, factor: float) -> np.ndarray:
    values = images / 255
    means = values.mean((2, 3), keepdims=True)
    return _to_uint8((values - means) * factor + means)


def _saturate(images: np.ndarray, draws: Draws, change: tuple[float, float]) -> np.ndarray:
    """Saturation in HSV times a factor plus a summand; grey has hue 0, red, as published."""
    values = images / 255
    value, least = values.max(1, keepdims=True), values.min(1, keepdims=True)
    range_ = value - least
    saturation = np.where(value > 0, range_ / np.where(value > 0, value, 1), 0)
    wanted = np.clip(saturation * change[0] + change[1], 0, 1)
    hue = np.where(range_ > 0, (value - values) / np.where(range_ > 0, range_, 1), np.array([0, 1, 1])[:, None, None])
    return _to_uint8(value * (1 - wanted * hue))


def _pixelate(images: np.ndarray, draws: Draws, share: float) -> np.ndarray:
    size = images.shape[-1]
    side = max(1, int(size * share / math.sqrt(max(1.0, size / SIDE))))

    def coarse(image: Image.Image) -> Image.Image:
        small = image.resize((side, side), Image.Resampling.BOX)
        return small.resize((size, size), Image.Resampling.BOX)

    return _each(images, coarse)


def _jpeg(images: np.ndarray, draws: Draws, quality: int) -> np.ndarray:
    def encoded(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return _each(images, encoded)


def _each(images: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    pictures = (Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in images)
    return np.stack([np.asarray(change(picture)).transpose(2, 0, 1) for picture in pictures])


# name -> (function, its parameter at strengths 1 to 5 on 32 pixels: CIFAR-10-C's)
CORRUPTIONS: dict[str, tuple[Callable[[np.ndarray, Draws, Any], np.ndarray], tuple[Any, ...]]] = {
    "gaussian-noise": (_gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot-noise": (_shot_noise, (500, 250, 100, 75, 50)),
    "impulse-noise": (_impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "gaussian-blur": (_gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "defocus-blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))),
    "motion-blur": (_motion_blur, ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))),
    "fog": (_fog, ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))),
    "brightness": (_brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": (_contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "saturate": (_saturate, ((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2))),
    "pixelate": (_pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": (_jpeg, (80, 65, 58, 50, 40)),
}
