"""Augmentations against brute force, and draws that belong to the image alone."""

import numpy as np
import pytest
import torch

from resfit.data.augment import crop, flip, make_augment
from resfit.data.batches import derive, epoch_order, image_keys, integers, make_normalize, mix, uniform
from resfit.plugins import AUGMENTATIONS, check_params, function

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


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_every_augmentation_depends_on_the_image_alone(name, dtype):
    """The contract of docs/design.md for whoever adds one: shape, type and device kept, whatever the batch."""
    apply, params = function("augmentations", name), check_params("augmentations", name, {}, name)
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


def test_augment_applies_in_order_with_draws_of_its_own():
    augment = make_augment({"crop": {"padding": 4, "mode": "zeros"}, "flip": {}})
    index = torch.arange(32)
    expected = crop(images(), image_keys(7, 3, index, "crop"), 4, "zeros")
    expected = flip(expected, image_keys(7, 3, index, "flip"))
    assert torch.equal(augment(images(), index, 7, 3), expected)


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
