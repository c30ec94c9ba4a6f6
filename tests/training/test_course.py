"""Progressive resizing against Pillow's filter, progressive freezing against a loop that never had the frozen part."""

import numpy as np
import pytest
import torch
from PIL import Image

from resfit.errors import UsageError
from resfit.recipe import Freezing, Resizing
from resfit.recipefile import load_recipe
from resfit.training.course import make_shrink
from resfit.training.init import make_state
from resfit.training.step import make_step

CPU = torch.device("cpu")
FIXED = ["data.mean=[0.5,0.4,0.3]", "data.std=[0.2,0.3,0.4]", "train.epochs=2", "train.batch_size=8", "augment={}"]


@pytest.mark.parametrize("size", [24, 16, 11])
def test_shrunk_images_are_pillows(size):
    pixels = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    expected = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    shrink = make_shrink(Resizing(sizes=(size,), until=(0.5,)))
    images = torch.from_numpy(pixels)[None, None].to(memory_format=torch.channels_last)
    np.testing.assert_allclose(shrink(images, 0.2)[0, 0].numpy(), expected, atol=1e-5)


def test_sizes_follow_the_progress():
    shrink = make_shrink(Resizing(sizes=(8, 12), until=(0.3, 0.6)))
    images = torch.zeros(1, 3, 16, 16)
    sides = [shrink(images, progress).shape[-1] for progress in (0.0, 0.29, 0.3, 0.59, 0.6, 0.99)]
    assert sides == [8, 8, 12, 12, 16, 16]
    assert shrink(images, 0.9) is images


@pytest.mark.parametrize("family", ["resnet", "wrn", "separable", "whitened"])
def test_frozen_stages_stand_still_and_keep_no_graph(family):
    spec = f"{family}:widths=4,8,8:blocks_per_stage=1,1,1:image_size=16"
    recipe = load_recipe(spec, [*FIXED, "freezing.until=[0.25,0.5]", "optim.weight_decay=0.1"])
    state, step = make_state(recipe, 0, CPU), make_step(recipe, 4, CPU)
    state.model.train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=generator)
    moved = []
    for _ in range(8):
        before = {name: value.clone() for name, value in state.model.named_parameters()}
        step(state, images, torch.arange(8), torch.arange(8), 0)
        moved.append({name for name, value in state.model.named_parameters() if not torch.equal(value, before[name])})
    first, second = "stages.0.", "stages.1."
    assert any(name.startswith("stem") for name in moved[1])
    assert any(name.startswith(first) for name in moved[1])
    assert not any(name.startswith(("stem", first)) for name in moved[2])  # a quarter of eight steps
    assert any(name.startswith(second) for name in moved[3])
    assert not any(name.startswith(("stem", first, second)) for name in moved[4])
    assert any(name.startswith("stages.2.") for name in moved[7])
    assert any(name.startswith("head") for name in moved[7])
    assert all(p.grad is None for name, p in state.model.named_parameters() if name.startswith(("stem", first, second)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["resizing.sizes=[16]"], "resizing: has 1 sizes and 0 of until. Give one `until` for each size"),
        (["resizing={sizes=[40], until=[0.5]}"], r"resizing.sizes: 40 is not below data.image_size \(32\)"),
        (["resizing={sizes=[16,24], until=[0.5,0.4]}"], "resizing.until: must be shares of training, each later"),
        (["resizing={sizes=[16], until=[1.0]}"], "resizing.until.0: "),
        (["freezing.until=[0.2,0.4,0.6]"], "freezing.until: has 3 shares for 3 stages. The last stage trains on"),
        (["train.validate_every=2", "train.early_stopping=3"], "train.validate_every must be 1: train.early_stopping"),
        (
            ["train.validate_every=2", "schedule.name=plateau"],
            "train.validate_every must be 1: schedule.name 'plateau'",
        ),
    ],
)
def test_a_course_that_does_not_fit_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        load_recipe("resnet:widths=4,8,8:blocks_per_stage=1,1,1", settings)


def test_freezing_of_nothing_is_the_default():
    assert Freezing().until == ()
