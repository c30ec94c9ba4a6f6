"""AutoAugment, RandAugment, TrivialAugment: an operation and a strength drawn for each image, applied to a whole batch at once.

AutoAugment: Cubuk et al. 2018 (arXiv 1805.09501). RandAugment: Cubuk et al. 2019 (arXiv 1909.13719). TrivialAugment: Müller,
Hutter 2021 (arXiv 2103.10158). The operations are Pillow's, as in the authors' code: nearest neighbour, zeros from outside,
shears about the upper left corner. Departures: translations scale with the side; where a strength's sign is free, both signs
are as likely for factors too (1 - s and 1 + s, as torchvision has it; the authors of RandAugment and TrivialAugment go from
the lowest factor to the highest, AutoAugment's policy does so here too).
"""

from enum import IntEnum
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from resfit.data.batches import integers, uniform
from resfit.data.color import blend, grey, look_up, mean_grey, smooth
from resfit.data.geometry import about_centre, inverse_affine, warp


class Op(IntEnum):
    """The operations, those with a sign first, geometry before factors."""

    IDENTITY = 0
    SHEAR_X = 1  # a slope
    SHEAR_Y = 2
    TRANSLATE_X = 3  # pixels
    TRANSLATE_Y = 4
    ROTATE = 5  # degrees
    BRIGHTNESS = 6  # the factor less 1, here and below
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10  # bits kept
    SOLARIZE = 11  # the level from which on pixels are inverted
    AUTOCONTRAST = 12
    EQUALIZE = 13
    INVERT = 14


class Space(NamedTuple):
    """The greatest strength of each operation."""

    shear: float
    translate: float  # of the side
    degrees: float
    factor: float
    bits: int  # taken away


SEARCHED = Space(0.3, 150 / 331, 30, 0.9, 4)  # AutoAugment's Table 6, made for 331 pixels
WIDE = Space(0.99, 1.0, 135, 0.99, 6)  # TrivialAugment's Table 1, 32 pixels of the 32 of CIFAR

# (operation, probability, strength 0..9) twice: AutoAugment's Table 7, found on reduced CIFAR-10
SubPolicy = tuple[tuple[Op, float, int], tuple[Op, float, int]]
CIFAR_POLICY: tuple[SubPolicy, ...] = (
    ((Op.INVERT, 0.1, 7), (Op.CONTRAST, 0.2, 6)),
    ((Op.ROTATE, 0.7, 2), (Op.TRANSLATE_X, 0.3, 9)),
    ((Op.SHARPNESS, 0.8, 1), (Op.SHARPNESS, 0.9, 3)),
    ((Op.SHEAR_Y, 0.5, 8), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTOCONTRAST, 0.5, 8), (Op.EQUALIZE, 0.9, 2)),
    ((Op.SHEAR_Y, 0.2, 7), (Op.POSTERIZE, 0.3, 7)),
    ((Op.COLOR, 0.4, 3), (Op.BRIGHTNESS, 0.6, 7)),
    ((Op.SHARPNESS, 0.3, 9), (Op.BRIGHTNESS, 0.7, 9)),
    ((Op.EQUALIZE, 0.6, 5), (Op.EQUALIZE, 0.5, 1)),
    ((Op.CONTRAST, 0.6, 7), (Op.SHARPNESS, 0.6, 5)),
    ((Op.COLOR, 0.7, 7), (Op.TRANSLATE_X, 0.5, 8)),
    ((Op.EQUALIZE, 0.3, 7), (Op.AUTOCONTRAST, 0.4, 8)),
    ((Op.TRANSLATE_Y, 0.4, 3), (Op.SHARPNESS, 0.2, 6)),
    ((Op.BRIGHTNESS, 0.9, 6), (Op.COLOR, 0.2, 8)),
    ((Op.SOLARIZE, 0.5, 2), (Op.INVERT, 0.0, 3)),
    ((Op.EQUALIZE, 0.2, 0), (Op.AUTOCONTRAST, 0.6, 0)),
    ((Op.EQUALIZE, 0.2, 8), (Op.EQUALIZE, 0.6, 4)),
    ((Op.COLOR, 0.9, 9), (Op.EQUALIZE, 0.6, 6)),
    ((Op.AUTOCONTRAST, 0.8, 4), (Op.SOLARIZE, 0.2, 8)),
    ((Op.BRIGHTNESS, 0.1, 3), (Op.COLOR, 0.7, 0)),
    ((Op.SOLARIZE, 0.4, 5), (Op.AUTOCONTRAST, 0.9, 3)),
    ((Op.TRANSLATE_Y, 0.9, 9), (Op.TRANSLATE_Y, 0.7, 9)),
    ((Op.AUTOCONTRAST, 0.9, 2), (Op.SOLARIZE, 0.8, 3)),
    ((Op.EQUALIZE, 0.8, 8), (Op.INVERT, 0.1, 3)),
    ((Op.TRANSLATE_Y, 0.7, 9), (Op.AUTOCONTRAST, 0.9, 1)),
)


def auto_augment(images: Tensor, keys: Tensor) -> Tensor:
    """Return images uint8 (N, 3, H, W), each after one of the 25 sub-policies that AutoAugment found on CIFAR-10.

    Strengths 0..9 are ten equal steps of the paper's ranges; the sign of a shear, translation or angle is drawn.
    """
    ops, chances, values = _policy_table(images.shape[2], images.shape[3], images.device)
    chosen = integers(keys, 0, len(CIFAR_POLICY))
    for slot in range(2):
        applied = uniform(keys, 1 + 2 * slot) < chances[chosen, slot]
        op = torch.where(applied, ops[chosen, slot], Op.IDENTITY)
        value = values[chosen, slot]
        negative = (op <= Op.ROTATE) & (uniform(keys, 2 + 2 * slot) < 0.5)
        images = apply_ops(images, op, torch.where(negative, -value, value))
    return images


def rand_augment(images: Tensor, keys: Tensor, num_ops: int, magnitude: int) -> Tensor:
    """Return images uint8 (N, 3, H, W), each after `num_ops` operations drawn from 14, all of strength `magnitude`, 0..30.

    Strengths and ranges as in torchvision, but that solarize begins at 256 and not at 255; an operation may come twice.
    """
    values = _value_table(SEARCHED, images.shape[2], images.shape[3], images.device)[:, magnitude]
    for slot in range(num_ops):
        op = integers(keys, 2 * slot, Op.INVERT)
        images = apply_ops(images, op, _signed(op, values[op], keys, 2 * slot + 1))
    return images


def trivial_augment(images: Tensor, keys: Tensor) -> Tensor:
    """Return images uint8 (N, 3, H, W), each after one of 14 operations, with one of 31 strengths of the wide space."""
    values = _value_table(WIDE, images.shape[2], images.shape[3], images.device)
    op = integers(keys, 0, Op.INVERT)
    return apply_ops(images, op, _signed(op, values[op, integers(keys, 1, 31)], keys, 2))


def apply_ops(images: Tensor, ops: Tensor, values: Tensor) -> Tensor:
    """Return images uint8 (N, 3, H, W), to each of which its operation of `Op` (N,) int64 is applied with its value (N,).

    Three passes over the whole batch, whose work does not depend on what was drawn: a warp, a table of levels, a blend. Each
    leaves the images of other operations as they are, to the bit.
    """
    images = warp(images, _matrices(images, ops, values))
    bits = torch.where(ops == Op.POSTERIZE, values, 8)
    threshold = torch.where(ops == Op.SOLARIZE, values, torch.where(ops == Op.INVERT, 0.0, 256.0))
    images = look_up(images, bits, threshold, ops == Op.AUTOCONTRAST, ops == Op.EQUALIZE)
    return _enhance(images, ops, values)


def _matrices(images: Tensor, ops: Tensor, values: Tensor) -> Tensor:
    """Return the matrices (N, 6) for `warp`: the identity for operations that are not geometric."""

    def value_of(op: Op) -> Tensor:
        return torch.where(ops == op, values, 0.0)

    turned = about_centre(inverse_affine(value_of(Op.ROTATE)), images)
    zero = torch.zeros_like(values)
    order = [zero, value_of(Op.SHEAR_X), value_of(Op.TRANSLATE_X), value_of(Op.SHEAR_Y), zero, value_of(Op.TRANSLATE_Y)]
    return turned + torch.stack(order, dim=1)


def _enhance(images: Tensor, ops: Tensor, values: Tensor) -> Tensor:
    """Return uint8 images blended by a factor with what Pillow's enhancer of their operation starts from."""
    pixels = images.to(torch.float32)
    one_grey = grey(pixels)
    op = ops[:, None, None, None]
    start = torch.where(op == Op.CONTRAST, mean_grey(one_grey), 0.0)
    start = torch.where(op == Op.COLOR, one_grey, start)
    start = torch.where(op == Op.SHARPNESS, smooth(pixels), start)
    factor = torch.where((ops >= Op.BRIGHTNESS) & (ops <= Op.SHARPNESS), 1 + values, 1.0)
    return blend(pixels, start, factor).to(torch.uint8)


def _signed(ops: Tensor, values: Tensor, keys: Tensor, draw: int) -> Tensor:
    return torch.where((ops <= Op.SHARPNESS) & (uniform(keys, draw) < 0.5), -values, values)


def _value(op: Op, share: float, space: Space, height: int, width: int) -> float:
    """Return the value of an operation at a share 0..1 of its greatest strength, its sign positive."""
    if op in (Op.SHEAR_X, Op.SHEAR_Y):
        return space.shear * share
    if op in (Op.TRANSLATE_X, Op.TRANSLATE_Y):
        return int(space.translate * (width if op == Op.TRANSLATE_X else height) * share)
    if op == Op.ROTATE:
        return space.degrees * share
    if Op.BRIGHTNESS <= op <= Op.SHARPNESS:
        return space.factor * share
    if op == Op.POSTERIZE:
        return 8 - round(space.bits * share)
    return 256 - int(256 * share)  # of solarize; the others have none


@cache
def _value_table(space: Space, height: int, width: int, device: torch.device) -> Tensor:
    """Return the values (15 operations, 31 strengths) float32; kept, so that a step copies nothing to the device."""
    rows = [[_value(op, level / 30, space, height, width) for level in range(31)] for op in Op]
    return torch.tensor(rows, dtype=torch.float32, device=device)


@cache
def _policy_table(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return operations int64, probabilities and values float32 of AutoAugment's policy, each (25, 2)."""

    def value(op: Op, level: int) -> float:
        if Op.BRIGHTNESS <= op <= Op.SHARPNESS:
            return SEARCHED.factor * (2 * level / 9 - 1)  # from 0.1 to 1.9
        return _value(op, level / 9, SEARCHED, height, width)

    ops = torch.tensor([[op for op, _, _ in sub] for sub in CIFAR_POLICY], device=device)
    chances = torch.tensor([[chance for _, chance, _ in sub] for sub in CIFAR_POLICY], device=device)
    values = torch.tensor([[value(op, level) for op, _, level in sub] for sub in CIFAR_POLICY], device=device)
    return ops, chances, values
