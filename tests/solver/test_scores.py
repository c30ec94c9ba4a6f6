"""Training-free scores against closed forms of small networks, and against a count by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from resfit.models.spec import ModelSpec
from resfit.solver.scores import grad_norm, naswot, score_network, synflow

SPEC = ModelSpec("resnet", (8, 16), (1, 2), image_size=8, se_reduction=4)


def test_synflow_of_a_chain_is_the_flow_once_a_layer():
    layers = [nn.Linear(12, 7, bias=False), nn.Linear(7, 5, bias=False), nn.Linear(5, 3, bias=False)]
    flow = np.ones(12)
    for layer in layers:
        flow = np.abs(layer.weight.detach().double().numpy()) @ flow
    found = synflow(nn.Sequential(nn.Flatten(), *layers), torch.randn(4, 3, 2, 2))
    assert found == pytest.approx(math.log(3 * flow.sum()))


def test_synflow_does_not_see_fresh_batch_norms():
    torch.manual_seed(0)
    conv, end = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 2)
    plain = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), end)
    plain_flow = synflow(plain, torch.randn(2, 3, 5, 5))
    normed = nn.Sequential(conv, nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), end)
    assert synflow(normed, torch.randn(2, 3, 5, 5)) == pytest.approx(plain_flow, abs=1e-4)


def test_naswot_counts_the_relus_on_which_two_images_agree():
    torch.manual_seed(0)
    first, second, images = nn.Linear(4, 30), nn.Linear(30, 20), torch.randn(6, 1, 2, 2)
    hidden = images.flatten(1) @ first.weight.T + first.bias
    later = hidden.clamp(min=0) @ second.weight.T + second.bias
    on = (torch.cat([hidden, later], 1) > 0).tolist()
    kernel = [[sum(a == b for a, b in zip(left, right, strict=True)) for right in on] for left in on]
    model = nn.Sequential(nn.Flatten(), first, nn.ReLU(inplace=True), second, nn.ReLU())
    assert naswot(model, images) == pytest.approx(np.linalg.slogdet(np.array(kernel, float))[1])


def test_grad_norm_of_a_linear_network():
    torch.manual_seed(0)
    layer, images, labels = nn.Linear(12, 3), torch.randn(5, 3, 2, 2), torch.tensor([0, 1, 2, 1, 0])
    x = images.flatten(1).numpy()
    logits = x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slope = (probs - np.eye(3)[labels.numpy()]).T @ x / 5
    assert grad_norm(nn.Sequential(nn.Flatten(), layer), images, labels) == pytest.approx(
        np.linalg.norm(slope), rel=1e-5
    )


def test_scores_of_a_network_are_its_seeds():
    scores = score_network(SPEC)
    assert set(scores) == {"naswot", "synflow", "grad_norm"}
    assert all(map(math.isfinite, scores.values()))
    assert scores == score_network(SPEC)
    assert scores != score_network(SPEC, seed=1)
