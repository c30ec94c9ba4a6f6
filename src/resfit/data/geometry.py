"""Geometric augmentations: one sampler `warp`, with an inverse matrix an image, that rotation, affine and the policies share.

Places, nearest and bilinear are those of Pillow's `Image.transform(size, AFFINE, ...)`: a pixel's centre is (x + 0.5, y + 0.5),
bilinear repeats the edge for half a pixel, and what lies outside is zero.
"""

import torch
from torch import Tensor

from resfit.data.batches import uniform

Values = Tensor | float  # one value an image, (N,), or the same for all


def rotation(images: Tensor, keys: Tensor, degrees: float, interpolation: str) -> Tensor:
    """Return images (N, C, H, W), each rotated about its centre by an angle uniform in [-degrees, degrees].

    Counter-clockwise where positive, as Pillow's `rotate`; the corners that come in are zero.
    """
    return warp(images, about_centre(inverse_affine(degrees * signed(keys, 0)), images), interpolation)


def affine(
    images: Tensor,
    keys: Tensor,
    translate: float,
    degrees: float,
    scale: tuple[float, float],
    shear: float,
    interpolation: str,
) -> Tensor:
    """Return images (N, C, H, W), each shifted, rotated, scaled and sheared about its centre by amounts of its own.

    The shift is uniform within `translate` times the side, in whole pixels; angle and shear (along x) are uniform within
    +-degrees and +-shear degrees; the scale is uniform between its two bounds. What comes in is zero.
    """
    height, width = images.shape[2:]
    low, high = scale
    matrix = inverse_affine(
        degrees * signed(keys, 2), low + (high - low) * uniform(keys, 3), (shear * signed(keys, 4)).deg2rad().tan()
    )
    right = (translate * width * signed(keys, 0)).round()
    down = (translate * height * signed(keys, 1)).round()
    return warp(images, about_centre(matrix, images, right, down), interpolation)


def signed(keys: Tensor, draw: int) -> Tensor:
    """Return the draw number `draw` of each key, (N,) float32 uniform in [-1, 1)."""
    return 2 * uniform(keys, draw) - 1


def inverse_affine(degrees: Tensor, scale: Values = 1.0, slope: Values = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the inverse of shearing by `slope` along x, scaling, then rotating, as a, b, d, e, each (N,)."""
    angle = degrees.deg2rad()
    cos, sin = angle.cos() / scale, angle.sin() / scale
    return cos + slope * -sin, -sin - slope * cos, sin, cos


def about_centre(
    matrix: tuple[Tensor, Tensor, Tensor, Tensor], images: Tensor, right: Values = 0.0, down: Values = 0.0
) -> Tensor:
    """Return matrices (N, 6) for `warp` that apply `matrix` about the images' centre, then shift by pixels."""
    a, b, d, e = matrix
    y, x = images.shape[2] / 2, images.shape[3] / 2
    return torch.stack([a, b, x - a * (x + right) - b * (y + down), d, e, y - d * (x + right) - e * (y + down)], dim=1)


def warp(images: Tensor, matrices: Tensor, interpolation: str = "nearest") -> Tensor:
    """Return images (N, C, H, W), each pixel (x, y) taken from (a x + b y + c, d x + e y + f) of its image, else zero.

    `matrices` (N, 6) float32 holds a, b, c, d, e, f, Pillow's order. Interpolation is "nearest", for which the place is
    rounded down to a pixel, or "bilinear", whose result is rounded down where images are integers, as Pillow does.
    """
    height, width = images.shape[2:]
    across = torch.arange(width, device=images.device) + 0.5
    along = torch.arange(height, device=images.device) + 0.5
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    x = a * across + (b * along[:, None] + c)
    y = d * across + (e * along[:, None] + f)
    column, row = x.floor(), y.floor()
    inside = ((column.clamp(0, width - 1) == column) & (row.clamp(0, height - 1) == row))[:, None]
    if interpolation == "nearest":
        return _take(images, row, column) * inside
    x, y = x - 0.5, y - 0.5
    left, top = x.floor(), y.floor()
    right_share, low_share = (x - left)[:, None], (y - top)[:, None]
    upper = _mix(_take(images, top, left), _take(images, top, left + 1), right_share)
    lower = _mix(_take(images, top + 1, left), _take(images, top + 1, left + 1), right_share)
    return _mix(upper, lower, low_share).to(images.dtype) * inside


def _take(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels (N, C, H, W) at rows and columns, (N, H, W) float32 whole numbers, kept within the image."""
    count, channels, height, width = images.shape
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    flat = (rows * width + columns).long().view(count, 1, height * width)  # exact: far below 2**24
    return images.reshape(count, channels, -1).gather(2, flat.expand(-1, channels, -1)).view_as(images)


def _mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    start = first.to(torch.float32)
    return start + (second - start) * share
