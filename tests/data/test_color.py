"""Colour operations against Pillow's ImageEnhance and the standard library's colorsys."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from resfit.data.batches import image_keys, uniform
from resfit.data.color import blend, color_jitter, grey, mean_grey, turn_hue

OFF = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
ENHANCERS = {
    "brightness": (ImageEnhance.Brightness, 0),
    "contrast": (ImageEnhance.Contrast, 1),
    "saturation": (ImageEnhance.Color, 2),
}


def keys(count=72):
    return image_keys(0, 0, torch.arange(count), "test")


def picture(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def array(picture):
    return np.asarray(picture).astype(int).transpose(2, 0, 1)


def test_grey_and_its_mean_are_pillows(pieces):
    made = grey(pieces.float())
    for image, ours, mean in zip(pieces, made, mean_grey(made).flatten().tolist(), strict=True):
        expected = np.asarray(picture(image).convert("L"))
        np.testing.assert_array_equal(ours[0].numpy(), expected)
        assert mean == int(expected.mean() + 0.5)
    every = torch.stack(torch.meshgrid(*[torch.arange(0, 256, 5)] * 3, indexing="ij")).reshape(1, 3, -1, 52).float()
    np.testing.assert_array_equal(grey(every)[0, 0].numpy(), np.asarray(picture(every[0].to(torch.uint8)).convert("L")))


@pytest.mark.parametrize("strength", [0.3, 1.0, 1.9])
@pytest.mark.parametrize("name", ENHANCERS)
def test_one_operation_alone_is_pillows_exactly(pieces, name, strength):
    """No tolerance: the same float32 arithmetic, rounded down."""
    enhancer, draw = ENHANCERS[name]
    after = color_jitter(pieces, keys(), **{**OFF, name: strength})
    low = max(0, 1 - strength)
    factors = (low + (1 + strength - low) * uniform(keys(), draw)).tolist()
    assert max(factors) - min(factors) > 0.9 * (1 + strength - low)
    for image, ours, factor in zip(pieces, after, factors, strict=True):
        np.testing.assert_array_equal(ours.numpy(), array(enhancer(picture(image)).enhance(factor)))


def test_operations_follow_each_other_in_the_stated_order(pieces):
    after = color_jitter(pieces, keys(), **{**OFF, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8})
    factors = [(0.2 + 1.6 * uniform(keys(), draw)).tolist() for draw in range(3)]
    for k, image in enumerate(pieces):
        expected = picture(image)
        for (enhancer, _), factor in zip(ENHANCERS.values(), factors, strict=True):
            expected = enhancer(expected).enhance(factor[k])
        np.testing.assert_array_equal(after[k].numpy(), array(expected))


def test_hue_is_colorsys_within_rounding(pieces):
    """float32 against double: a level apart only where the exact value is within 1e-3 of a half."""
    turns = torch.linspace(-0.5, 0.5, 24)
    some = pieces[::3, :, ::4, ::4]
    after = turn_hue(some.float(), turns)
    for image, ours, turn in zip(some, after, turns.tolist(), strict=True):
        for before, got in zip(image.flatten(1).T.tolist(), ours.flatten(1).T.tolist(), strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*(v / 255 for v in before))
            exact = 255 * np.array(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value))
            assert abs(got - exact).max() < 0.5 + 1e-3
            assert all(v == int(v) for v in got)


def test_hue_is_pillows_hsv_within_its_coarseness(pieces):
    """torchvision's way: hue and saturation rounded down to 256 levels, the turn too, and the sum wraps at 256, not 255.

    A step of hue is 6 levels where the chroma is full: three make 18, and the saturation's one more.
    """
    turns = torch.linspace(-0.5, 0.5, len(pieces))
    after = turn_hue(pieces.float(), turns).numpy()
    differences = []
    for image, ours, turn in zip(pieces, after, turns.tolist(), strict=True):
        hsv = np.asarray(picture(image).convert("HSV")).copy()
        hsv[..., 0] += np.array(int(turn * 255)).astype(np.uint8)
        differences.append(abs(ours - array(Image.frombytes("HSV", (32, 32), hsv.tobytes()).convert("RGB"))))
    assert np.max(differences) <= 19
    assert np.mean(differences) < 2


def test_hue_turned_by_thirds_permutes_the_channels(pieces):
    third = torch.full((len(pieces),), 1 / 3)
    torch.testing.assert_close(turn_hue(pieces.float(), third), pieces.float().roll(1, 1), rtol=0, atol=1)
    assert torch.equal(turn_hue(pieces.float(), torch.zeros(len(pieces))), pieces.float())


def test_the_jitters_hue_is_drawn_between_its_bounds(pieces):
    after = color_jitter(pieces, keys(), **{**OFF, "hue": 0.25})
    expected = turn_hue(pieces.float(), 0.25 * (2 * uniform(keys(), 3) - 1))
    assert torch.equal(after.float(), expected)


def test_blend_clips_and_rounds_down():
    pixels = torch.tensor([0.0, 100.0, 255.0]).view(1, 3, 1, 1)
    made = blend(pixels, 50.0, torch.tensor([1.5])).flatten().tolist()
    assert made == [0, 125, 255]
