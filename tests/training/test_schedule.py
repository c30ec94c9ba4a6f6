"""Schedules, epoch by epoch, against torch's own."""

import pytest
import torch

from resfit.training.schedule import cosine, step, warmup


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
