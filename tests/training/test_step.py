"""The step against a plain PyTorch loop, the average against its formula, and each optimizer on a quadratic."""

import numpy as np
import pytest
import torch
from torch import nn

from resfit.models.networks import NETWORKS
from resfit.plugins import OPTIMIZERS, SCHEDULES, check_params, function
from resfit.recipefile import load_recipe, recipe_names
from resfit.training.ema import start_average, update_average
from resfit.training.init import make_state
from resfit.training.loop import batch_plan
from resfit.training.step import make_rate, make_step

CPU = torch.device("cpu")
SPEC = "resnet:widths=4,8:blocks_per_stage=1,1:image_size=8"


def recipe_of(*settings):
    fixed = ["data.mean=[0.5,0.4,0.3]", "data.std=[0.2,0.3,0.4]", "train.epochs=2", "train.batch_size=16"]
    recipe = load_recipe(SPEC, [*fixed, *settings])
    return recipe.model_copy(update={"augment": {}})


def data(count=40):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 10, (count,), generator=generator)


def slim(name):
    """Return settings that make a recipe's network narrow where a recipe of the network's own name trains the whole one."""
    whole = name in NETWORKS or name == "r1-separable"
    narrow = "resnet:widths=8,16,16,16:blocks_per_stage=1,1,1,1:se_reduction=4"
    narrow = "whitened:widths=8,16,16:blocks_per_stage=1,1,1" if name.startswith("speed-") else narrow
    return [] if whole else [f"network={narrow}"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_trains_two_steps(name):
    settings = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]", *slim(name)]
    recipe = load_recipe(name, settings)
    side, classes = recipe.network.image_size, recipe.network.classes
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=generator)
    state, step = make_state(recipe, 0, CPU), make_step(recipe, 2, CPU)
    before = {key: value.clone() for key, value in state.model.state_dict().items()}
    for _ in range(2):
        step(state, images, torch.arange(4) % classes, torch.arange(4), 0)
    assert state.sums[:3].isfinite().all()
    assert state.sums[3] == -1
    assert all(not torch.equal(value, before[key]) for key, value in state.model.named_parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_same_weights_as_the_plain_loop(optimizer):
    settings = ["optim.lr=0.01", "optim.clip_norm=1.0", "train.label_smoothing=0.1", "schedule.warmup_epochs=1"]
    recipe = recipe_of(f"optim.name={optimizer}", *settings)
    images, labels = data()
    state, other = make_state(recipe, 0, CPU), make_state(recipe, 0, CPU)
    step = make_step(recipe, 3, CPU)
    for number in range(3):
        index = torch.arange(16) + 8 * number
        step(state, images[index], labels[index], index, 0)

    model = other.model
    kinds = {"sgd": lambda p: torch.optim.SGD(p, 0.01, 0.9, weight_decay=5e-4, nesterov=True)}
    kinds["adamw"] = lambda p: torch.optim.AdamW(p, 0.01, weight_decay=5e-4)
    plain = kinds[optimizer](model.parameters())
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    for number in range(3):
        index = torch.arange(16) + 8 * number
        climb = (number + 1) / 3  # one epoch of warm-up has three steps
        plain.param_groups[0]["lr"] = 0.01 * climb * (1 + np.cos(np.pi * number / 6)) / 2
        inputs = (images[index].float() / 255 - mean) / std
        loss = nn.functional.cross_entropy(model(inputs), labels[index], label_smoothing=0.1)
        plain.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        plain.step()
    for (name, ours), theirs in zip(state.model.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)
    assert state.step == 3
    assert state.sums[2] == 48


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_step_of_sam_is_the_papers(adaptive):
    more = ["optim.momentum=0", "optim.nesterov=false", "optim.weight_decay=0", "schedule.warmup_epochs=0"]
    recipe = recipe_of("optim.lr=0.05", "optim.sam_rho=0.5", f"optim.sam_adaptive={str(adaptive).lower()}", *more)
    images, labels = data(16)
    state, other = make_state(recipe, 0, CPU), make_state(recipe, 0, CPU)
    make_step(recipe, 3, CPU)(state, images, labels, torch.arange(16), 0)

    model, loss = other.model.train(), nn.functional.cross_entropy
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    inputs = (images.float() / 255 - mean) / std
    loss(model(inputs), labels).backward()
    statistics = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    params = list(model.parameters())
    gradients, weights = [p.grad.clone() for p in params], [p.detach().clone() for p in params]
    scales = [w.abs() + 0.01 if adaptive else torch.ones_like(w) for w in weights]
    length = torch.cat([(t * g).flatten() for t, g in zip(scales, gradients, strict=True)]).norm()
    with torch.no_grad():
        for p, t, g in zip(params, scales, gradients, strict=True):
            p.add_(0.5 * t * t * g / length)
    model.zero_grad()
    loss(model(inputs), labels).backward()
    for ours, before, p in zip(state.model.parameters(), weights, params, strict=True):
        torch.testing.assert_close(ours, before - 0.05 * p.grad, rtol=1e-5, atol=1e-6)
    for name, value in statistics.items():  # BatchNorm's are those of the first pass
        torch.testing.assert_close(state.model.state_dict()[name], value)


def test_an_epochs_rate_is_kept_through_it():
    rate = make_rate(
        recipe_of("optim.lr=0.1", "schedule.interval=epoch", "schedule.warmup_epochs=0", "train.epochs=4"), 5
    )
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    for epoch in range(4):
        assert [rate(5 * epoch + k) for k in range(5)] == pytest.approx([theirs.get_last_lr()[0]] * 5)
        optimizer.step()
        theirs.step()


def test_muons_vectors_take_a_larger_rate_and_the_same_decay():
    """With no gradient, decay is all that moves a weight, and is alike in both groups whatever their rates."""
    recipe = recipe_of("optim.name=muon", "optim.lr=0.02", "optim.weight_decay=0.1", "schedule.warmup_epochs=0")
    state = make_state(recipe, 0, CPU)
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    images, labels = data(16)
    make_step(recipe, 3, CPU)(state, images, labels, torch.arange(16), 0)
    rates = sorted(group["lr"] for group in state.optimizer.param_groups)
    assert rates == pytest.approx([0.02, 0.2])
    for name, p in state.model.named_parameters():
        p.data.copy_(before[name])
        p.grad = torch.zeros_like(p)
        state.optimizer.state[p].clear()
    state.optimizer.step()
    for name, p in state.model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name] * (1 - 0.02 * 0.1))


def test_average_follows_its_formula():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = start_average(model)
    expected = {name: value.clone().double() for name, value in average.items()}
    for step in range(30):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(1)
        update_average(average, model, 0.9, step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in average.items():
        if name.endswith("num_batches_tracked"):
            assert value == 30
        else:
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_descends_a_quadratic(name):
    x = nn.Parameter(torch.tensor([3.0, -2.0]))
    params = check_params("optimizers", name, {}, "optim")
    optimizer = function("optimizers", name)([x], lr=0.05, weight_decay=0.0, **params)
    for _ in range(200):
        optimizer.zero_grad()
        (x**2).sum().backward()
        optimizer.step()
    assert (x**2).sum() < 0.01


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_stays_in_bounds(name):
    shape, params = function("schedules", name), check_params("schedules", name, {}, "schedule")
    values = [shape(k / 1000, 40, **params) for k in range(1000)]
    assert all(0 <= value <= 1 for value in values)
    assert max(values) == pytest.approx(1, abs=1e-3)


def test_rate_and_plan():
    recipe = recipe_of("optim.lr=0.4", "schedule.warmup_epochs=1")
    rate = make_rate(recipe, 10)
    assert rate(0) == pytest.approx(0.04)
    assert max(map(rate, range(20))) < 0.4
    assert batch_plan(recipe, 40) == (16, 3)  # 16 + 16 + 8
    assert batch_plan(recipe, 33) == (16, 2)  # the single one is left out
    assert batch_plan(recipe, 7) == (7, 1)
