"""The warp against Pillow's transform for the same matrices; rotation and affine against Pillow's rotate and plain algebra."""

import numpy as np
import pytest
import torch
from PIL import Image

from resfit.data.batches import image_keys
from resfit.data.geometry import about_centre, affine, inverse_affine, rotation, signed, warp

KINDS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}


def keys(count):
    return image_keys(0, 0, torch.arange(count), "test")


def pillow(images, matrices, interpolation):
    """Each image transformed by Pillow; where its source is within 1e-3 of a pixel's border, in a second array."""
    height, width = images.shape[2:]
    made, border = [], []
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    for image, (a, b, c, d, e, f) in zip(images, matrices.double().tolist(), strict=True):
        before = Image.fromarray(image.permute(1, 2, 0).numpy())
        after = before.transform((width, height), Image.Transform.AFFINE, (a, b, c, d, e, f), KINDS[interpolation])
        made.append(np.asarray(after).transpose(2, 0, 1))
        places = np.stack([a * x + b * y + c, d * x + e * y + f])
        border.append((abs(places - places.round()) < 1e-3).any(0))
    return np.stack(made).astype(int), np.stack(border)


def matrices(count):
    """Random ones: some leave the image, some turn it over, the first is the identity."""
    generator = torch.Generator().manual_seed(0)
    many = torch.randn(count, 6, generator=generator) * torch.tensor([0.5, 0.5, 10, 0.5, 0.5, 10])
    many += torch.tensor([1.0, 0, 0, 0, 1, 0])
    many[0] = torch.tensor([1.0, 0, 0, 0, 1, 0])
    return many


@pytest.mark.parametrize("width", [32, 20])
def test_nearest_is_pillows_but_at_borders_of_pixels(pieces, width):
    """Pillow places nearest in 16.16 fixed point: up to 32 / 2**17 pixels a coefficient, so that 1e-3 covers them all."""
    before, many = pieces[..., :width], matrices(len(pieces))
    after = warp(before, many).numpy()
    expected, border = pillow(before, many, "nearest")
    assert border[1:].mean() < 0.01
    assert ((after == expected).all(1) | border).all()
    assert torch.equal(warp(before, many)[0], before[0])


def test_bilinear_is_pillows_within_a_level(pieces):
    """Pillow's weights are doubles, ours float32, and both round down: a level apart where the sum is nearly whole.

    Within 1e-3 of a border only the outermost may differ by more, where one of the two finds itself outside.
    """
    many = matrices(len(pieces))
    after = warp(pieces, many, "bilinear").numpy().astype(int)
    expected, border = pillow(pieces, many, "bilinear")
    difference = abs(after - expected).max(1)
    assert difference[~border].max() <= 1
    assert (difference[~border] > 0).mean() < 0.01
    assert (difference <= 1).mean() > 0.999


@pytest.mark.parametrize("interpolation", KINDS)
def test_rotation_is_pillows_rotate(pieces, interpolation):
    after = rotation(pieces, keys(len(pieces)), 40, interpolation).numpy().astype(int)
    angles = (40 * signed(keys(len(pieces)), 0)).tolist()
    assert min(angles) < -35
    assert max(angles) > 35
    close = []
    for image, turned, angle in zip(pieces, after, angles, strict=True):
        expected = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).rotate(angle, KINDS[interpolation]))
        close.append(abs(turned - expected.astype(int).transpose(2, 0, 1)).max(0) <= (interpolation == "bilinear"))
    assert np.mean(close) > 0.999  # all but places at borders of pixels


def test_affine_undoes_shear_scale_rotation_and_shift_in_turn(pieces):
    """The matrix is the inverse, in numpy's linear algebra, of the operations one after the other about the centre."""
    draw, side = keys(len(pieces)), 32
    params = {"translate": 0.25, "degrees": 50.0, "scale": (0.6, 1.7), "shear": 30.0}
    after = affine(pieces, draw, **params, interpolation="nearest")
    scale = (0.6 + 1.1 * (signed(draw, 3) + 1) / 2).double().numpy()
    shift = np.round(8 * torch.stack([signed(draw, 0), signed(draw, 1)], 1).numpy())
    angle, slope = np.radians(50 * signed(draw, 2).numpy()), np.tan(np.radians(30 * signed(draw, 4).numpy()))
    rows = []
    for k in range(len(pieces)):
        to_centre = np.array([[1, 0, -side / 2], [0, 1, -side / 2], [0, 0, 1]])
        sheared = np.array([[1, slope[k], 0], [0, 1, 0], [0, 0, 1]])
        cos, sin = np.cos(angle[k]), np.sin(angle[k])
        turned = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])  # y points down
        back = np.array([[1, 0, side / 2 + shift[k, 0]], [0, 1, side / 2 + shift[k, 1]], [0, 0, 1]])
        whole = back @ turned @ np.diag([scale[k], scale[k], 1]) @ sheared @ to_centre
        rows.append(np.linalg.inv(whole)[:2].ravel())
    expected, border = pillow(pieces, torch.from_numpy(np.stack(rows)), "nearest")
    assert ((after.numpy() == expected).all(1) | border).all()


def test_affine_by_default_only_shifts_by_whole_pixels(pieces):
    after = affine(pieces, keys(len(pieces)), 0.1, 0.0, (1.0, 1.0), 0.0, "bilinear")
    shifts = set()
    for k in range(len(pieces)):
        x, y = (int(v) for v in np.round(3.2 * np.array([signed(keys(72), 0)[k], signed(keys(72), 1)[k]])))
        expected = np.zeros((3, 40, 40), np.uint8)
        expected[:, 4 + y : 36 + y, 4 + x : 36 + x] = pieces[k]
        np.testing.assert_array_equal(after[k].numpy(), expected[:, 4:36, 4:36])
        shifts.add((x, y))
    assert {x for x, _ in shifts} == {y for _, y in shifts} == set(range(-3, 4))


def test_a_whole_turn_of_floats_in_four_quarters(pieces):
    before = pieces[:, :1].to(torch.float32) / 7  # one channel, not whole numbers
    quarter = about_centre(inverse_affine(torch.full((len(pieces),), 90.0)), before)
    once = warp(before, quarter, "bilinear")
    torch.testing.assert_close(once[:, :, 1:-1, 1:-1], before.rot90(1, (2, 3))[:, :, 1:-1, 1:-1], rtol=0, atol=1e-3)
