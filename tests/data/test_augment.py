"""Augmentations against brute force, and draws that belong to the image alone."""

from functools import partial

import numpy as np
import pytest
import torch

from resfit.data.augment import alternating_flip, crop, cutout, erasing, flip, make_augment
from resfit.data.batches import derive, epoch_order, image_keys, integers, make_normalize, mix, uniform
from resfit.errors import UsageError
from resfit.plugins import AUGMENTATIONS, check_params, function, technique

MASK = 2**64 - 1


def images(count=32, side=9, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 3, side, side), generator=generator).to(dtype)


def keys(count=32, epoch=0):
    return image_keys(0, epoch, torch.arange(count), "test")


def test_mix_is_splitmix64s_finalizer():
    def reference(z):
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    values = [0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0, 0x9E3779B97F4A7C15]
    signed = torch.tensor([v - 2**64 if v >= 2**63 else v for v in values])
    assert [v & MASK for v in mix(signed).tolist()] == [reference(v) for v in values]
    # the published first outputs of SplitMix64 seeded with 1234567 (Vigna, splitmix64.c; also Rosetta Code)
    state = [(1234567 + (k + 1) * 0x9E3779B97F4A7C15) & MASK for k in range(3)]
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [reference(s) for s in state] == published


def test_uniform_is_uniform_and_draws_are_independent():
    many = keys(20_000)
    first, second = uniform(many, 0).double().numpy(), uniform(many, 1).double().numpy()
    assert first.min() >= 0
    assert first.max() < 1
    counts = np.histogram(first, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 43.8  # chi-square with 19 degrees of freedom, p = 0.001
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03
    assert set(integers(many, 2, 9).tolist()) == set(range(9))


@pytest.mark.parametrize(("mode", "numpy_mode"), [("zeros", "constant"), ("reflect", "reflect")])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_is_a_window_of_the_padded_image(mode, numpy_mode, dtype):
    before = images(dtype=dtype)
    after = crop(before, keys(), 4, mode)
    rows, columns = integers(keys(), 0, 9).tolist(), integers(keys(), 1, 9).tolist()
    assert len(set(rows)) > 5
    for k, (y, x) in enumerate(zip(rows, columns, strict=True)):
        padded = np.pad(before[k].numpy(), ((0, 0), (4, 4), (4, 4)), mode=numpy_mode)
        np.testing.assert_array_equal(after[k].numpy(), padded[:, y : y + 9, x : x + 9])


def test_flip_mirrors_about_half():
    before, many = images(2000, 4), keys(2000)
    after = flip(before, many)
    mirrored = (after == before.flip(-1)).flatten(1).all(1)
    same = (after == before).flatten(1).all(1)
    assert (mirrored | same).all()
    assert 0.45 < mirrored.float().mean() < 0.55


@pytest.mark.parametrize("fill", [0, 99])
def test_cutout_is_a_clipped_square_about_a_uniform_centre(fill):
    before, size = torch.full((900, 3, 9, 9), 7, dtype=torch.uint8), 4
    after = cutout(before, keys(900), size, fill)
    seen = set()
    for k, (y, x) in enumerate(
        zip(integers(keys(900), 0, 9).tolist(), integers(keys(900), 1, 9).tolist(), strict=True)
    ):
        expected = np.full((3, 9, 9), 7)
        expected[:, max(0, y - 2) : y + 2, max(0, x - 2) : x + 2] = fill
        np.testing.assert_array_equal(after[k].numpy(), expected)
        seen.add((y, x))
    assert len(seen) == 81  # corners too


def test_erasing_fills_whole_rectangles_of_the_asked_area_and_ratio():
    before = torch.full((3000, 3, 32, 48), 7, dtype=torch.uint8)
    after = erasing(before, keys(3000), 0.7, (0.1, 0.5), (0.5, 2.0), 200)
    erased = (after == 200).all(1)
    assert torch.equal(erased, (after != 7).any(1))
    hit = erased.flatten(1).any(1)
    assert abs(hit.float().mean() - 0.7) < 0.03
    down, across = erased[hit].any(2).sum(1), erased[hit].any(1).sum(1)
    assert torch.equal(erased[hit].flatten(1).sum(1), down * across)  # rectangles
    share, ratio = (down * across) / (32 * 48), down / across
    assert 0.095 < share.min() < 0.11
    assert 0.46 < share.max() < 0.52
    assert abs(share.mean() - 0.3) < 0.01  # uniform
    assert ratio.min() > 0.46
    assert ratio.max() < 2.15  # both but for the rounding to pixels
    assert abs(ratio[share < 0.3].log().mean()) < 0.04  # log-uniform where every ratio fits
    assert erased[hit].any(0).all()  # every place is reached


# beside the defaults, for the test of all augmentations below
OTHER_PARAMS = {
    "crop": [{"mode": "reflect"}],
    "rotation": [{"degrees": 180, "interpolation": "bilinear"}],
    "affine": [{"degrees": 30, "scale": (0.5, 2), "shear": 20}, {"translate": 0.5, "interpolation": "bilinear"}],
    "color-jitter": [{"brightness": 1, "contrast": 0.9, "saturation": 2, "hue": 0.5}],
    "cutout": [{"size": 3, "fill": 100}],
    "rand-augment": [{"num_ops": 3, "magnitude": 30}],
    "erasing": [{"probability": 1, "area": (0.5, 1), "ratio": (1, 1), "fill": 255}],
}
UINT8_ONLY = {"color-jitter", "auto-augment", "rand-augment", "trivial-augment"}


@pytest.mark.parametrize(
    ("name", "given"), [(name, given) for name in AUGMENTATIONS for given in [{}, *OTHER_PARAMS.get(name, [])]]
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_augmentation_depends_on_the_image_alone(name, given, dtype):
    """The contract of docs/design.md for whoever adds one: shape, type and device kept, whatever the batch."""
    if name in UINT8_ONLY:
        dtype = torch.uint8
    apply, params = function("augmentations", name), check_params("augmentations", name, given, name)
    if technique("augmentations", name).by_epoch:
        apply = partial(apply, epoch=0)
    before = images(dtype=dtype)
    copy = before.clone()
    whole = apply(before, keys(), **params)
    assert torch.equal(before, copy)
    assert (whole.shape, whole.dtype, whole.device) == (before.shape, before.dtype, before.device)
    assert torch.equal(whole, apply(before, keys(), **params))
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    parts = [apply(before[i], keys()[i], **params) for i in order.split(5)]
    assert torch.equal(torch.cat(parts), whole[order])
    assert not torch.equal(whole, apply(before, keys(epoch=1), **params))
    # on the device without data whatever would wait for the device, or has a shape that depends on values, raises
    nowhere = apply(before.to("meta"), keys().to("meta"), **params)
    assert (nowhere.shape, nowhere.dtype, nowhere.device.type) == (before.shape, before.dtype, "meta")


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("rotation", {"degrees": 0}, "greater than 0"),
        ("rotation", {"degrees": 181}, "less than or equal to 180"),
        ("rotation", {"interpolation": "bicubic"}, "'nearest' or 'bilinear'"),
        ("affine", {"translate": 1.5}, "less than or equal to 1"),
        ("affine", {"scale": (2, 1)}, "lower bound"),
        ("color-jitter", {"hue": 0.6}, "less than or equal to 0.5"),
        ("cutout", {"size": 0}, "greater than or equal to 1"),
        ("cutout", {"fill": 256}, "less than or equal to 255"),
        ("rand-augment", {"magnitude": 31}, "less than or equal to 30"),
        ("erasing", {"area": (0.5, 0.1)}, "lower bound"),
    ],
)
def test_values_out_of_bounds_are_refused_by_name(name, given, message):
    with pytest.raises(UsageError, match=message) as caught:
        check_params("augmentations", name, given, f"augment.{name}")
    assert str(caught.value).startswith(f"augment.{name}.{next(iter(given))}")


def test_augment_applies_in_order_with_draws_of_its_own():
    augment = make_augment({"crop": {"padding": 4, "mode": "zeros"}, "flip": {}})
    index = torch.arange(32)
    expected = crop(images(), image_keys(7, 3, index, "crop"), 4, "zeros")
    expected = flip(expected, image_keys(7, 3, index, "flip"))
    assert torch.equal(augment(images(), index, 7, 3), expected)


def test_alternating_flip_mirrors_each_image_every_second_epoch():
    augment, index = make_augment({"alternating-flip": {}}), torch.arange(32)
    epochs = [augment(images(), index, 0, epoch) for epoch in range(4)]
    first = [torch.equal(after, before) for after, before in zip(epochs[0], images(), strict=True)]
    assert 8 <= sum(first) <= 24
    for epoch, batch in enumerate(epochs):
        for k, before in enumerate(images()):
            kept = first[k] == (epoch % 2 == 0)
            assert torch.equal(batch[k], before if kept else before.flip(-1))
    assert torch.equal(alternating_flip(images(), keys(), 0), flip(images(), keys()))


def test_order_is_a_permutation_of_seed_and_epoch():
    one = epoch_order(0, 0, 1000)
    assert torch.equal(one.sort().values, torch.arange(1000))
    assert torch.equal(one, epoch_order(0, 0, 1000))
    assert not torch.equal(one, epoch_order(0, 1, 1000))
    assert not torch.equal(one, epoch_order(1, 0, 1000))
    assert derive(0, 1, "a") != derive(0, 1, "b")


def test_normalize():
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    before = images()
    plain = (before.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    after = make_normalize(mean, std, before.device)(before)
    assert after.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(after.double(), plain, rtol=1e-5, atol=1e-5)
