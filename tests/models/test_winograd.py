"""Winograd's form of a convolution against the direct one in float64: results, both gradients, and where it is taken."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resfit.models.winograd import NARROWEST, Conv3x3, Winograd, suits


def tensors(count, width_in, width, height, side):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, width_in, height, side, generator=generator)
    weight = torch.randn(width, width_in, 3, 3, generator=generator) / (3 * width_in**0.5)
    return x, weight, torch.randn(count, width, height, side, generator=generator)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "shape", [(3, 5, 7, 8, 8), (2, 6, 4, 7, 15), (4, 3, 9, 3, 3), (1, 2, 2, 1, 1), (2, 8, 8, 13, 4)]
)
def test_results_and_gradients_are_the_direct_forms(shape, layout):
    x, weight, grad = (tensor.to(memory_format=layout) for tensor in tensors(*shape))
    given = [x.requires_grad_(), weight.requires_grad_()]
    made = Winograd.apply(*given)
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    expected = F.conv2d(*exact, padding=1)
    ours = [made, *torch.autograd.grad(made, given, grad)]
    theirs = [expected, *torch.autograd.grad(expected, exact, grad.double())]
    for got, wanted in zip(ours, theirs, strict=True):
        assert got.shape == wanted.shape
        assert (got.double() - wanted).abs().max() <= 3e-5 * wanted.abs().max()


def test_a_wide_layer_takes_it_and_trains_as_the_direct_one(monkeypatch):
    layer = Conv3x3(NARROWEST, NARROWEST + 4, bias=True).to(memory_format=torch.channels_last)
    plain = nn.Conv2d(NARROWEST, NARROWEST + 4, 3, padding=1)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(8, NARROWEST, 9, 9, generator=torch.Generator().manual_seed(0))
    taken = []
    monkeypatch.setattr("resfit.models.winograd.spread_weights", spy(taken))
    layer(x).square().mean().backward()
    plain(x).square().mean().backward()
    assert taken, "the direct form was taken"
    for ours, theirs in zip(layer.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def spy(taken):
    from resfit.models import winograd

    original = winograd.spread_weights

    def spread(weight):
        taken.append(weight.shape)
        return original(weight)

    return spread


def test_a_frozen_layer_and_a_first_layer_get_only_the_gradient_that_is_needed():
    x, weight, grad = tensors(2, 4, 4, 8, 8)
    (of_weight,) = torch.autograd.grad(Winograd.apply(x, weight.requires_grad_()), [weight], grad)
    (of_x,) = torch.autograd.grad(Winograd.apply(x.requires_grad_(), weight.detach()), [x], grad)
    assert of_weight.shape == weight.shape
    assert of_x.shape == x.shape


@pytest.mark.parametrize(
    ("width", "count", "kind", "device", "taken"),
    [
        (NARROWEST, 8, torch.float32, "cpu", True),
        (NARROWEST - 1, 8, torch.float32, "cpu", False),
        (NARROWEST, 1, torch.float32, "cpu", False),
        (NARROWEST, 8, torch.float64, "cpu", False),
        (NARROWEST, 8, torch.float32, "meta", False),
    ],
)
def test_where_it_is_taken(width, count, kind, device, taken):
    x = torch.empty(count, width, 8, 8, dtype=kind, device=device)
    weight = torch.empty(NARROWEST, width, 3, 3, dtype=kind, device=device)
    assert suits(x, weight) is taken


def test_autocast_and_compilation_keep_the_direct_form():
    layer, x = Conv3x3(NARROWEST, NARROWEST, bias=False), torch.randn(8, NARROWEST, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert not suits(x, layer.weight)
        assert layer(x).dtype == torch.bfloat16
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-3, atol=1e-4)
