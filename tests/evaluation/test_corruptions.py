"""Corruptions against the published table, Pillow, scipy.ndimage, colorsys, and the moments of noise; on real photographs."""

import colorsys
import io
import itertools
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_images

from resfit.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupt, disk, plasma

# Hendrycks & Dietterich's make_cifar_c.py (github.com/hendrycks/robustness, commit ca360085), read by hand.
PUBLISHED = {
    "gaussian-noise": [0.04, 0.06, 0.08, 0.09, 0.10],
    "shot-noise": [500, 250, 100, 75, 50],
    "impulse-noise": [0.01, 0.02, 0.03, 0.05, 0.07],
    "gaussian-blur": [0.4, 0.6, 0.7, 0.8, 1],
    "defocus-blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    "motion-blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
    "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
    "contrast": [0.75, 0.5, 0.4, 0.3, 0.15],
    "brightness": [0.05, 0.1, 0.15, 0.2, 0.3],
    "saturate": [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
    "jpeg": [80, 65, 58, 50, 40],
    "pixelate": [0.95, 0.9, 0.85, 0.75, 0.65],
}


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Sixteen crops of scikit-learn's two photographs, uint8 (16, 3, 32, 32)."""
    pictures = [Image.fromarray(image).resize((128, 64)) for image in load_sample_images().images]
    arrays = [np.asarray(picture).transpose(2, 0, 1) for picture in pictures]
    return np.stack([a[:, y : y + 32, x : x + 32] for a in arrays for y in (0, 32) for x in range(0, 128, 32)])


def keys(images: np.ndarray) -> np.ndarray:
    return np.arange(len(images), dtype=np.uint64) + 2**63


def close(ours: np.ndarray, theirs: np.ndarray, most: int = 1) -> None:
    assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= most


def test_strengths_are_the_published_ones():
    assert {name: list(values) for name, (_, values) in CORRUPTIONS.items()} == PUBLISHED


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_is_deterministic_by_image_and_worse_by_strength(photos, name):
    before = photos.copy()
    made = [corrupt(photos, keys(photos), name, strength) for strength in STRENGTHS]
    assert all(m.dtype == np.uint8 and m.shape == photos.shape for m in made)
    alone = corrupt(photos[5:6], keys(photos)[5:6], name, 3)
    np.testing.assert_array_equal(made[2][5:6], alone)
    np.testing.assert_array_equal(photos, before)
    far = [np.abs(m.astype(float) - photos).mean() for m in made]
    assert far[0] > 0
    if name == "saturate":  # as published the first two take colour away and the others add it
        assert far[1] > far[0]
        assert far[4] > far[3] > far[2]
    else:
        assert all(one <= other * 1.1 for one, other in itertools.pairwise(far))  # motion's angles are drawn
    assert corrupt(np.zeros((2, 3, 7, 7), np.uint8), np.arange(2, dtype=np.uint64), name, 5).shape == (2, 3, 7, 7)


def test_noise_has_the_published_moments():
    grey = np.full((40, 3, 32, 32), 128, np.uint8)
    for strength, sigma in enumerate(PUBLISHED["gaussian-noise"], 1):
        values = corrupt(grey, keys(grey), "gaussian-noise", strength) / 255
        assert values.std() == pytest.approx(sigma, rel=0.02)
        assert values.mean() == pytest.approx(128 / 255, abs=0.002)
    for strength, photons in enumerate(PUBLISHED["shot-noise"], 1):
        values = corrupt(grey, keys(grey), "shot-noise", strength) / 255
        assert values.std() == pytest.approx(math.sqrt(128 / 255 / photons), rel=0.03)
    for strength, share in enumerate(PUBLISHED["impulse-noise"], 1):
        values = corrupt(grey, keys(grey), "impulse-noise", strength)
        assert (values != 128).mean() == pytest.approx(share, rel=0.1)
        assert (values == 255).mean() == pytest.approx(share / 2, rel=0.15)
        assert set(np.unique(values)) == {0, 128, 255}
    one, other = corrupt(grey[:2], keys(grey)[:2], "gaussian-noise", 1)
    assert np.abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1


def test_gaussian_blur_is_scipys(photos):
    for strength, sigma in enumerate(PUBLISHED["gaussian-blur"], 1):
        expected = ndimage.gaussian_filter(photos / 255, (0, 0, sigma, sigma), mode="nearest", truncate=4)
        close(corrupt(photos, keys(photos), "gaussian-blur", strength), np.rint(expected * 255))


def test_defocus_is_a_disk_and_scipys_convolution(photos):
    for strength, (radius, sigma) in enumerate(PUBLISHED["defocus-blur"], 1):
        steps = np.arange(-8, 9)
        circle = (steps[:, None] ** 2 + steps**2 <= radius**2).astype(float)
        taps = np.exp(-np.array([1, 0, 1]) / (2 * sigma**2))
        kernel = ndimage.convolve(circle / circle.sum(), np.outer(taps, taps) / taps.sum() ** 2, mode="constant")
        half = len(disk(radius, sigma, 1)) // 2
        np.testing.assert_allclose(disk(radius, sigma, 1), kernel[8 - half : 9 + half, 8 - half : 9 + half], atol=1e-12)
        expected = ndimage.correlate(photos / 255, kernel[None, None], mode="mirror")
        close(corrupt(photos, keys(photos), "defocus-blur", strength), np.rint(expected * 255))


def test_motion_blur_spreads_a_point_along_a_line(photos):
    point = np.zeros((30, 3, 32, 32), np.uint8)
    point[:, :, 16, 16] = 255
    made = corrupt(point, keys(point), "motion-blur", 5)[:, 0].astype(float)
    places, angles = np.arange(32) - 16, []
    for image in made:
        total = image.sum()
        assert total == pytest.approx(255, abs=10)  # what rounding leaves
        x, y = (image.sum(0) @ places) / total, (image.sum(1) @ places) / total
        expected = np.exp(-(np.arange(19) ** 2) / (2 * 2.5**2))
        assert np.hypot(x, y) == pytest.approx((expected @ np.arange(19)) / expected.sum(), abs=0.35)
        angles.append(np.degrees(np.arctan2(y, -x) if x < 0 else np.arctan2(-y, x)))
    assert -50 <= min(angles) < -20
    assert 20 < max(angles) <= 50
    flat = np.full((1, 3, 32, 32), 77, np.uint8)
    np.testing.assert_array_equal(corrupt(flat, keys(flat), "motion-blur", 3), flat)


def test_brightness_and_saturation_are_those_of_hsv(photos):
    for name in ("brightness", "saturate"):
        for strength, change in enumerate(PUBLISHED[name], 1):
            ours = corrupt(photos[3:4], keys(photos[3:4]), name, strength)[0]
            for y, x in ((0, 0), (5, 9), (31, 31), (17, 2)):
                h, s, v = colorsys.rgb_to_hsv(*(photos[3, :, y, x] / 255))
                if name == "brightness":
                    v = min(1, v + change)
                else:
                    s = min(1, s * change[0] + change[1])
                close(ours[:, y, x], np.rint(np.array(colorsys.hsv_to_rgb(h, s, v)) * 255))
    extreme = np.array([[0, 0, 0], [255, 255, 255], [90, 90, 90]], np.uint8).T.reshape(1, 3, 1, 3)
    extreme = np.ascontiguousarray(extreme.repeat(3, 2))
    expected = [colorsys.hsv_to_rgb(0, 0.2, v) for v in (0, 1, 90 / 255)]
    close(corrupt(extreme, keys(extreme), "saturate", 5)[0, :, 0].T, np.rint(np.array(expected) * 255))
    assert corrupt(extreme, keys(extreme), "brightness", 5)[0, :, 0, 0].tolist() == [76] * 3


def test_contrast_jpeg_and_pixelate_are_the_published_lines(photos):
    for strength in STRENGTHS:
        made = {name: corrupt(photos, keys(photos), name, strength) for name in ("contrast", "jpeg", "pixelate")}
        for row, image in enumerate(photos):
            scaled = image / 255
            means = scaled.mean((1, 2), keepdims=True)
            expected = np.clip((scaled - means) * PUBLISHED["contrast"][strength - 1] + means, 0, 1)
            close(made["contrast"][row], np.rint(expected * 255))
            picture = Image.fromarray(image.transpose(1, 2, 0))
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=PUBLISHED["jpeg"][strength - 1])
            np.testing.assert_array_equal(made["jpeg"][row].transpose(1, 2, 0), np.asarray(Image.open(buffer)))
            side = int(32 * PUBLISHED["pixelate"][strength - 1])
            small = picture.resize((side, side), Image.Resampling.BOX).resize((32, 32), Image.Resampling.BOX)
            np.testing.assert_array_equal(made["pixelate"][row].transpose(1, 2, 0), np.asarray(small))


def test_clouds_are_rough_by_their_decay_and_fog_follows_them(photos):
    def draws() -> list[np.random.Generator]:
        return [np.random.default_rng(k) for k in range(20)]

    smooth, rough = plasma(draws(), 32, 3.0), plasma(draws(), 32, 1.75)
    for clouds in (smooth, rough):
        assert clouds.shape == (20, 32, 32)
        assert clouds.min() == 0
        assert clouds.max() == 1
    steps = [np.abs(np.diff(clouds, axis=1)).mean() for clouds in (smooth, rough)]
    assert steps[1] > 1.2 * steps[0]
    assert plasma(draws(), 33, 2.0).shape == (20, 64, 64)
    black = np.zeros((4, 3, 32, 32), np.uint8)  # nothing to light the fog
    np.testing.assert_array_equal(corrupt(black, keys(black), "fog", 5), black)
    white = np.full((4, 3, 32, 32), 255, np.uint8)
    made = corrupt(white, keys(white), "fog", 1) / 255
    assert made.min() >= 1 / 1.2 - 0.003  # x m / (m + c), where there is no cloud
    assert made.max() <= 1


def test_larger_images_take_lengths_in_proportion(photos):
    large = np.stack(
        [np.asarray(Image.fromarray(p.transpose(1, 2, 0)).resize((96, 96))).transpose(2, 0, 1) for p in photos]
    )
    expected = ndimage.gaussian_filter(large / 255, (0, 0, 3, 3), mode="nearest", truncate=4)
    close(corrupt(large, keys(large), "gaussian-blur", 5), np.rint(expected * 255))
    assert disk(1.5, 0.1, 3).shape[0] >= 11
    made = corrupt(large, keys(large), "pixelate", 5)
    side = int(96 * 0.65 / math.sqrt(3))
    picture = Image.fromarray(large[0].transpose(1, 2, 0)).resize((side, side), Image.Resampling.BOX)
    np.testing.assert_array_equal(
        made[0].transpose(1, 2, 0), np.asarray(picture.resize((96, 96), Image.Resampling.BOX))
    )
