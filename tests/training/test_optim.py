"""Muon against torch's own on matrices and against the polar factor on convolutions; SAM against its definition."""

import pytest
import torch
from torch import nn

from resfit.plugins import check_params
from resfit.training.optim import muon, newton_schulz, orthogonal_updates
from resfit.training.sam import ETA, ascent, climbed


def make(params, lr, weight_decay=0.0, **given):
    return muon(params, lr=lr, weight_decay=weight_decay, **check_params("optimizers", "muon", given, "optim"))


def test_muon_on_matrices_is_torchs():
    """torch iterates in bfloat16 and ours, on a CPU, in float32: hence a tolerance of 3% of an update's scale."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 16), (24, 6), (8, 16))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    mine = make(ours, lr=0.02, weight_decay=0.1, momentum=0.9)
    other = torch.optim.Muon(theirs, 0.02, weight_decay=0.1, momentum=0.9, nesterov=True)
    for _ in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape)
            q.grad = p.grad.clone()
        mine.step()
        other.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=5 * 0.02 * 0.03 * max(1, p.shape[0] / p.shape[1]) ** 0.5, rtol=0)


def test_convolutions_are_read_as_matrices_and_batched_by_shape():
    torch.manual_seed(0)
    updates = [torch.randn(6, 4, 3, 3), torch.randn(12, 2, 1, 1), torch.randn(6, 4, 3, 3), torch.randn(6, 36)]
    for update, made in zip(updates, orthogonal_updates(updates), strict=True):
        assert made.shape == update.shape
        matrix, flat = update.flatten(1), made.flatten(1)
        scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        values = (u.T @ flat @ v.T) / scale
        diagonal = values.diagonal()
        torch.testing.assert_close(values, torch.diag(diagonal), atol=2e-4, rtol=0)  # the same singular vectors
        assert 0.6 < diagonal.min() <= diagonal.max() < 1.3  # and values brought near 1


def test_newton_schulz_of_zero_is_zero():
    assert torch.equal(newton_schulz(torch.zeros(2, 3, 4)), torch.zeros(2, 3, 4))


def test_what_has_one_axis_takes_plain_momentum():
    x = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = make([x], lr=0.1, momentum=0.5, vector_momentum=0.9, nesterov=False, vector_scale=1.0)
    plain, buffer = x.detach().clone(), torch.zeros(2)
    for _ in range(3):
        x.grad = x.detach() * 2
        buffer = 0.9 * buffer + 0.1 * 2 * plain
        plain = plain - 0.1 * buffer
        optimizer.step()
    torch.testing.assert_close(x.detach(), plain)


def test_linear_layers_may_take_plain_momentum_at_a_rate_of_their_own():
    weight = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    plain, buffer = weight.detach().clone(), torch.zeros(3, 4)
    optimizer = make([weight], lr=0.1, linear_scale=2.0, vector_momentum=0.8, nesterov=False)
    for _ in range(3):
        weight.grad = weight.detach() * 2
        buffer = 0.8 * buffer + 0.2 * 2 * plain
        plain = plain - 0.1 * buffer
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * group["lr_scale"]  # as the step sets it
        optimizer.step()
    torch.testing.assert_close(weight.detach(), plain)


def test_normalized_convolutions_keep_their_norm_but_for_the_update():
    weight = nn.Parameter(5 * torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)))
    before = weight.detach().clone()
    weight.grad = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    make([weight], lr=0.01, normalize=True).step()
    moved = weight.detach() - before * 6**0.5 / before.norm()
    assert moved.norm() == pytest.approx(0.01 * 6**0.5, rel=0.3)  # six values near 1, times lr
    assert weight.detach().norm() == pytest.approx(6**0.5, rel=0.02)


@pytest.mark.parametrize("adaptive", [False, True])
def test_ascent_is_the_papers(adaptive):
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4))]
    for p in params:
        p.grad = torch.randn_like(p)
    w, g = (torch.cat([v.flatten() for v in values]) for values in (params, [p.grad for p in params]))
    t = w.abs() + ETA if adaptive else torch.ones_like(w)
    expected = 0.05 * t**2 * g / (t * g).norm()
    ours = torch.cat([step.flatten() for step in ascent(list(params), 0.05, adaptive)])
    torch.testing.assert_close(ours, expected)


def test_climbed_weights_come_back_exactly_and_statistics_stand_still():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    x = torch.randn(5, 3, 8, 8)
    loss = model(x).square().mean()
    loss.backward()
    before = {name: value.clone() for name, value in model.state_dict().items() if "num_batches" not in name}
    with climbed(model, 0.1, adaptive=False):
        assert model(x).square().mean() > loss
        moved = torch.cat([(p.detach() - before[name]).flatten() for name, p in model.named_parameters()])
        assert moved.norm() == pytest.approx(0.1, rel=1e-4)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert model[1].momentum == 0.1
