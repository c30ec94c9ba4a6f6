"""Schedules, epoch by epoch, against torch's own."""

from functools import partial

import pytest
import torch

from resfit.plugins import check_params
from resfit.training.schedule import (
    Plateau,
    after_loss,
    cosine,
    multi_step,
    one_cycle,
    step,
    triangular,
    warm_restarts,
    warmup,
)


def torch_rates(make, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("end", [0.0, 0.01])
def test_cosine(end):
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 200, eta_min=end), 200)
    assert [cosine(k / 200, 200, end) for k in range(200)] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("epochs", "every", "gamma"), [(25, 10, 0.1), (50, 10, 0.1), (49, 7, 0.5)])
def test_step_at_every_step_of_every_epoch(epochs, every, gamma):
    per_epoch = 391
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, every, gamma), epochs)
    for k in range(epochs * per_epoch):
        ours = step(k / (epochs * per_epoch), epochs, every, gamma)
        assert ours == pytest.approx(theirs[k // per_epoch], rel=1e-9)


def test_warmup_climbs_to_one():
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1 / 5, 1.0, 4), 10)
    assert [warmup((k + 1) / 10, 10, 5) for k in range(10)] == pytest.approx(theirs)
    assert warmup(0.0, 10, 0) == 1.0


def test_multi_step():
    theirs = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [7, 20, 41], 0.2), 50)
    for k in range(50 * 13):
        assert multi_step(k / (50 * 13), 50, (7.0, 20.0, 41.0), 0.2) == pytest.approx(theirs[k // 13], rel=1e-9)


def test_triangular():
    make = partial(torch.optim.lr_scheduler.CyclicLR, base_lr=0.2, max_lr=1.0, cycle_momentum=False)
    theirs = torch_rates(lambda o: make(o, step_size_up=30, step_size_down=90), 120)
    assert [triangular(k / 120, 120, 0.25, 0.2, 0.2) for k in range(120)] == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("peak", [0.3, 0.5])
def test_one_cycle_is_torchs_but_for_where_its_halves_meet(peak):
    """torch ends the climb at step peak * steps - 1 and the descent at the last step: its halves are those of ours."""
    steps, start, end = 100, 1 / 25, 1 / 25 / 1e4
    make = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=1.0, div_factor=25, final_div_factor=1e4)
    theirs = torch_rates(lambda o: make(o, total_steps=steps, pct_start=peak, cycle_momentum=False), steps)
    top = peak * steps - 1
    for k, expected in enumerate(theirs):
        progress = peak * k / top if k <= top else peak + (1 - peak) * (k - top) / (steps - 1 - top)
        assert one_cycle(progress, 1, peak, start, end) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("growth", [1, 2, 3])
def test_warm_restarts(growth):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10, growth, eta_min=0.01)
    optimizer.step()
    for k in range(150 * 4):
        theirs.step(k / 4)
        ours = warm_restarts(k / 600, 150, 10.0, growth, 0.01)
        assert ours == pytest.approx(theirs.get_last_lr()[0], abs=1e-7)


@pytest.mark.parametrize("given", [{}, {"patience": 0}, {"patience": 2, "cooldown": 3, "factor": 0.5, "end": 0.1}])
def test_plateau_is_torchs_at_every_epoch(given):
    generator = torch.Generator().manual_seed(0)
    losses = (2 * torch.rand(200, generator=generator) + 100 / torch.arange(1, 201)).tolist()
    params = check_params("schedules", "plateau", given, "schedule")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    keys = {"factor", "patience", "threshold", "cooldown"}
    own = {key: value for key, value in params.items() if key in keys}
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, min_lr=params["end"], eps=0, **own)
    ours, seen = Plateau(), set()
    for loss in losses:
        theirs.step(loss)
        ours = after_loss(ours, loss, **params)
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        seen.add(round(ours.factor, 12))
    assert len(seen) > 2
