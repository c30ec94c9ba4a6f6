"""Colour augmentations of uint8 RGB batches, in the arithmetic of Pillow's ImageEnhance: blend with a degenerate image.

Colour jitter: the four operations of torchvision's ColorJitter, but always in the order brightness, contrast, saturation,
hue (theirs is drawn for each image), and with the hue turned in floating point, not in Pillow's 8-bit HSV.
"""

import torch
from torch import Tensor

from resfit.data.batches import uniform
from resfit.data.geometry import signed


def color_jitter(
    images: Tensor, keys: Tensor, brightness: float, contrast: float, saturation: float, hue: float
) -> Tensor:
    """Return images uint8 (N, 3, H, W), each with brightness, contrast and saturation times a factor of its own, hue turned.

    A factor is uniform in [max(0, 1 - strength), 1 + strength]; the turn is uniform in [-hue, hue], 0.5 being half
    the circle. A strength of 0 leaves its operation out.
    """
    pixels = images.to(torch.float32)
    if brightness > 0:
        pixels = blend(pixels, 0.0, _factor(keys, 0, brightness))
    if contrast > 0:
        pixels = blend(pixels, mean_grey(grey(pixels)), _factor(keys, 1, contrast))
    if saturation > 0:
        pixels = blend(pixels, grey(pixels), _factor(keys, 2, saturation))
    if hue > 0:
        pixels = turn_hue(pixels, hue * signed(keys, 3))
    return pixels.to(torch.uint8)


def blend(pixels: Tensor, degenerate: Tensor | float, factor: Tensor) -> Tensor:
    """Return `degenerate + factor * (pixels - degenerate)`, clipped to 0..255 and rounded down, as Pillow's `Image.blend`.

    Pixels are whole numbers 0..255 as float32 (N, C, H, W), factors (N,) at least 0.
    """
    return ((pixels - degenerate).mul_(factor[:, None, None, None]).add_(degenerate)).clamp_(0, 255).floor_()


def grey(pixels: Tensor) -> Tensor:
    """Return the grey image (N, 1, H, W) of float32 RGB pixels 0..255, rounded as Pillow's `convert("L")` (ITU-R 601-2)."""
    red, green, blue = pixels.unbind(1)
    # Pillow's integers over 2**16; their sum stays below 2**24, so that float32 holds it exactly
    return ((red * 19595 + green * 38470 + blue * 7471 + 32768) * 2**-16).floor_()[:, None]


def mean_grey(grey_pixels: Tensor) -> Tensor:
    """Return the mean of each grey image, (N, 1, 1, 1), rounded half up as in Pillow's `ImageEnhance.Contrast`."""
    total = grey_pixels.to(torch.int32).sum((1, 2, 3), keepdim=True)  # whole numbers: the order of adding cannot matter
    count = grey_pixels[0].numel()
    return ((2 * total + count) // (2 * count)).to(torch.float32)


def turn_hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """Return float32 RGB pixels 0..255 (N, 3, H, W) with the hue of HSV turned by `turns` (N,) circles, rounded."""
    red, green, blue = pixels.unbind(1)
    value = pixels.amax(1)
    chroma = value - pixels.amin(1)
    divisor = chroma.clamp(min=1)  # where it is 0, so are the differences
    # the hue in sixths of the circle, from red at 0
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    sixths += 6 * turns[:, None, None]
    channels = []
    for start in (5, 3, 1):  # a channel lacks the whole chroma within a sixth of its opposite, and none near itself
        k = (sixths + start).remainder_(6)
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, 1).add_(0.5).floor_()


def smooth(pixels: Tensor) -> Tensor:
    """Return float32 pixels 0..255 after Pillow's SMOOTH filter: 3 x 3 of weight 1, centre 5, over 13; borders unchanged."""
    planes = pixels.reshape(-1, *pixels.shape[2:])
    rows = planes[:, :-2] + planes[:, 1:-1] + planes[:, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    made = planes.clone()
    made[:, 1:-1, 1:-1] = total.add_(planes[:, 1:-1, 1:-1], alpha=4).mul_(1 / 13).add_(0.5).floor_()
    return made.view_as(pixels)


def look_up(images: Tensor, bits: Tensor, threshold: Tensor, stretched: Tensor, equalized: Tensor) -> Tensor:
    """Return images uint8 (N, C, H, W), each through a table of 256 levels a channel, with the arithmetic of Pillow's ImageOps.

    `bits` (N,) are kept, 8 for all; levels from `threshold` (N,) on are inverted, 256 for none; the contrast is stretched where
    `stretched` (N,) bool, the histogram flattened where `equalized` (N,) bool, of which the latter stands for all.
    """
    count, channels = images.shape[:2]
    flat = images.reshape(count, channels, -1)
    index = flat.long()
    levels = torch.arange(256, dtype=torch.float32, device=images.device)
    step = (8 - bits).exp2()[:, None]
    table = (levels / step).floor() * step
    table = torch.where(levels < threshold[:, None], table, 255 - table)[:, None]
    low, high = flat.amin(2, keepdim=True).float(), flat.amax(2, keepdim=True).float()
    stretched = stretched[:, None, None] & (high > low)
    low, span = torch.where(stretched, low, 0.0), torch.where(stretched, high - low, 255.0)
    # exact; Pillow's doubles come to one less at some levels that are whole numbers
    table = (255 * (table - low) / span).floor_().clamp_(0, 255)
    table = torch.where(equalized[:, None, None], _equalized(index), table).to(torch.uint8)
    return table.gather(2, index).view_as(images)


def _equalized(index: Tensor) -> Tensor:
    """Return the tables (N, C, 256) float32 that flatten the histogram of each channel (N, C, H W) int64."""
    count, channels, pixels = index.shape
    ones = torch.ones((), dtype=torch.int32, device=index.device).expand(index.shape)
    histogram = torch.zeros(count, channels, 256, dtype=torch.int32, device=index.device).scatter_add_(2, index, ones)
    last = histogram.gather(2, index.amax(2, keepdim=True))
    step = (pixels - last) // 255
    below = histogram.cumsum(2, dtype=torch.int32) - histogram
    made = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    return torch.where(step > 0, made, torch.arange(256, device=index.device)).float()


def _factor(keys: Tensor, draw: int, strength: float) -> Tensor:
    low = max(0.0, 1 - strength)
    return low + (1 + strength - low) * uniform(keys, draw)
