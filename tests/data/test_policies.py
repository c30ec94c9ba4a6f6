"""The policies' operations against Pillow, and the policies against a loop over images with Pillow and the papers' tables."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from resfit.data.batches import image_keys, integers, uniform
from resfit.data.policies import Op, apply_ops, auto_augment, rand_augment, trivial_augment

AFFINE = Image.Transform.AFFINE


def enhance(enhancer):
    """By 1 + value in float32, as strengths are kept: a last bit can move a level where the product is a whole number."""
    return lambda picture, value: enhancer(picture).enhance(float(1 + np.float32(value)))


PILLOW = {
    "identity": lambda picture, value: picture,
    "shear_x": lambda picture, value: picture.transform(picture.size, AFFINE, (1, value, 0, 0, 1, 0)),
    "shear_y": lambda picture, value: picture.transform(picture.size, AFFINE, (1, 0, 0, value, 1, 0)),
    "translate_x": lambda picture, value: picture.transform(picture.size, AFFINE, (1, 0, value, 0, 1, 0)),
    "translate_y": lambda picture, value: picture.transform(picture.size, AFFINE, (1, 0, 0, 0, 1, value)),
    "rotate": lambda picture, value: picture.rotate(value),
    "brightness": enhance(ImageEnhance.Brightness),
    "color": enhance(ImageEnhance.Color),
    "contrast": enhance(ImageEnhance.Contrast),
    "sharpness": enhance(ImageEnhance.Sharpness),
    "posterize": lambda picture, value: ImageOps.posterize(picture, int(value)),
    "solarize": lambda picture, value: ImageOps.solarize(picture, value),
    "autocontrast": lambda picture, value: ImageOps.autocontrast(picture),
    "equalize": lambda picture, value: ImageOps.equalize(picture),
    "invert": lambda picture, value: ImageOps.invert(picture),
}
VALUES = {
    **dict.fromkeys(("shear_x", "shear_y"), (-0.99, -0.301, -0.05, 0.0, 0.107, 0.95)),
    **dict.fromkeys(("translate_x", "translate_y"), (-32, -14, -1, 0, 5, 31, 40)),
    "rotate": (-134, -29.7, -3.1, 0, 4.4, 77.7, 130),  # at 135, both diagonals lie on borders
    **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), (-0.99, -0.9, -0.33, 0, 0.0625, 0.47, 0.99)),
    "posterize": (1, 2, 3, 4, 5, 6, 7, 8),
    "solarize": (0, 1, 100, 128, 255, 256),
}
# no tolerance but: nearest may differ where the source is at a pixel's border (test_geometry.py says why), and autocontrast
# by one level, where Pillow's doubles round a whole number down to the one below
SAME = {"shear_x": 0.998, "shear_y": 0.998, "rotate": 0.998}
LEVELS = {"autocontrast": 1}

# AutoAugment (arXiv 1805.09501), Table 7: operation, probability, magnitude; those without magnitude are given 0
TABLE_7 = """
invert .1 0 contrast .2 6|rotate .7 2 translate_x .3 9|sharpness .8 1 sharpness .9 3|shear_y .5 8 translate_y .7 9
autocontrast .5 0 equalize .9 0|shear_y .2 7 posterize .3 7|color .4 3 brightness .6 7|sharpness .3 9 brightness .7 9
equalize .6 0 equalize .5 0|contrast .6 7 sharpness .6 5|color .7 7 translate_x .5 8|equalize .3 0 autocontrast .4 0
translate_y .4 3 sharpness .2 6|brightness .9 6 color .2 8|solarize .5 2 invert 0 0|equalize .2 0 autocontrast .6 0
equalize .2 0 equalize .6 0|color .9 9 equalize .6 0|autocontrast .8 0 solarize .2 8|brightness .1 3 color .7 0
solarize .4 5 autocontrast .9 0|translate_y .9 9 translate_y .7 9|autocontrast .9 0 solarize .8 3|equalize .8 0 invert .1 0
translate_y .7 9 autocontrast .9 0
"""


def keys(count):
    return image_keys(0, 0, torch.arange(count), "test")


def run(image, steps):
    """One image, uint8 tensor (3, H, W), through Pillow's operations by name and value."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    for name, value in steps:
        picture = PILLOW[name](picture, value)
    return np.asarray(picture).transpose(2, 0, 1)


def assert_nearly_all_the_same(after, expected):
    """But for places at borders of pixels, for autocontrast's level, and for what a later operation makes of that level."""
    difference = abs(after.numpy().astype(int) - np.stack(expected)).max(1)
    assert (difference == 0).mean() > 0.996
    assert (difference <= 2).mean() > 0.999


def signed(draw, count):
    return np.where(uniform(keys(count), draw).numpy() < 0.5, -1, 1)


@pytest.mark.parametrize("op", Op)
def test_an_operation_is_pillows(pieces, op):
    name = op.name.lower()
    values = torch.tensor(VALUES.get(name, (0.0,)), dtype=torch.float32)
    for value in values:
        after = apply_ops(pieces, torch.full((len(pieces),), op), value.repeat(len(pieces)))
        assert after.dtype == torch.uint8
        expected = np.stack([run(image, [(name, value.item())]) for image in pieces])
        difference = abs(after.numpy().astype(int) - expected)
        assert (difference <= LEVELS.get(name, 0)).mean() >= SAME.get(name, 1.0)
        if value != 0 and name not in ("identity", "posterize", "solarize"):
            assert (after != pieces).float().mean() > 0.05


def test_images_of_a_batch_each_have_their_own_operation(pieces):
    ops = torch.arange(len(pieces)) * 7 % 15
    values = torch.tensor([VALUES.get(Op(op).name.lower(), (0.0,))[0] for op in ops.tolist()], dtype=torch.float32)
    after = apply_ops(pieces, ops, values)
    alone = [apply_ops(pieces[k : k + 1], ops[k : k + 1], values[k : k + 1]) for k in range(len(pieces))]
    assert torch.equal(after, torch.cat(alone))
    expected = [
        run(image, [(Op(op).name.lower(), v)])
        for image, op, v in zip(pieces, ops.tolist(), values.tolist(), strict=True)
    ]
    assert_nearly_all_the_same(after, expected)


def test_operations_on_images_that_are_not_square_nor_large():
    generator = torch.Generator().manual_seed(0)
    for height, width in ((5, 9), (2, 7), (1, 1), (40, 24)):
        before = torch.randint(0, 256, (30, 3, height, width), generator=generator, dtype=torch.uint8)
        ops = torch.arange(30) % 15
        ops[ops == Op.SHARPNESS] = 0 if min(height, width) < 3 else Op.SHARPNESS  # Pillow's filter refuses these
        values = torch.tensor([VALUES.get(Op(op).name.lower(), (0.0,))[-1] for op in ops.tolist()])
        after = apply_ops(before, ops, values.float()).numpy().astype(int)
        for k, (op, value) in enumerate(zip(ops.tolist(), values.tolist(), strict=True)):
            name = Op(op).name.lower()
            difference = abs(after[k] - run(before[k], [(name, value)]))
            assert (difference <= LEVELS.get(name, 0)).mean() >= 0.95


def test_trivial_augment_is_one_operation_of_the_wide_space(pieces):
    before = pieces[torch.arange(1500) % len(pieces)]
    after = trivial_augment(before, keys(1500))
    names = list(PILLOW)[:14]  # no inversion
    chosen, level = integers(keys(1500), 0, 14).tolist(), integers(keys(1500), 1, 31).tolist()
    expected = []
    for image, number, k, sign in zip(before, chosen, level, signed(2, 1500), strict=True):
        name = names[number]
        if name.startswith("translate"):
            value = sign * int(32 * k / 30)
        elif name == "posterize":
            value = 8 - round(6 * k / 30)
        elif name == "solarize":
            value = 256 - int(256 * k / 30)
        else:
            value = sign * (135 if name == "rotate" else 0.99) * k / 30
        expected.append(run(image, [(name, value)]))
    assert_nearly_all_the_same(after, expected)
    assert set(level) == set(range(31))
    assert min(Counter(chosen).values()) > 70


@pytest.mark.parametrize(("num_ops", "magnitude"), [(1, 30), (2, 9), (3, 17)])
def test_rand_augment_is_some_operations_of_one_strength(pieces, num_ops, magnitude):
    before = pieces[torch.arange(400) % len(pieces)]
    after = rand_augment(before, keys(400), num_ops, magnitude)
    share = magnitude / 30
    value = {
        **dict.fromkeys(("shear_x", "shear_y"), 0.3 * share),
        **dict.fromkeys(("translate_x", "translate_y"), int(150 / 331 * 32 * share)),
        "rotate": 30 * share,
        "posterize": 8 - round(4 * share),
        "solarize": 256 - int(256 * share),
    }
    names = list(PILLOW)[:14]
    steps = [[] for _ in range(400)]
    for slot in range(num_ops):
        drawn = zip(steps, integers(keys(400), 2 * slot, 14).tolist(), signed(2 * slot + 1, 400), strict=True)
        for of_image, number, sign in drawn:
            one_way = names[number] in ("posterize", "solarize")
            of_image.append((names[number], value.get(names[number], 0.9 * share) * (1 if one_way else sign)))
    assert_nearly_all_the_same(after, [run(image, s) for image, s in zip(before, steps, strict=True)])


def test_auto_augment_is_the_papers_table(pieces):
    table = [sub.split() for line in TABLE_7.split("\n") for sub in line.split("|") if sub]
    assert len(table) == 25
    before = pieces[torch.arange(2000) % len(pieces)]
    after = auto_augment(before, keys(2000))
    chosen = integers(keys(2000), 0, 25).tolist()
    draws = [uniform(keys(2000), draw).tolist() for draw in range(5)]
    expected = []
    for k, image in enumerate(before):
        steps = []
        for slot in range(2):
            name, probability, magnitude = table[chosen[k]][3 * slot : 3 * slot + 3]
            share = int(magnitude) / 9
            sign = -1 if draws[2 + 2 * slot][k] < 0.5 else 1
            value = {
                "shear_y": sign * 0.3 * share,
                "translate_x": sign * int(150 / 331 * 32 * share),
                "translate_y": sign * int(150 / 331 * 32 * share),
                "rotate": sign * 30 * share,
                "posterize": 8 - round(4 * share),
                "solarize": 256 - int(256 * share),
            }
            if draws[1 + 2 * slot][k] < float(probability):
                steps.append((name, value.get(name, 0.1 + 1.8 * share - 1)))
        expected.append(run(image, steps))
    assert_nearly_all_the_same(after, expected)
    assert set(chosen) == set(range(25))
