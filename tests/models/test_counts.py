"""Every count against a source of its own: the reports, PyTorch's counter, and hooks on the real modules."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resfit.models.families import build, cost
from resfit.models.layers import BasicBlock, SqueezeExcitation
from resfit.models.networks import NETWORKS, network
from resfit.models.spec import ModelSpec
from resfit.models.whitened_net import PooledConv, ResidualConv
from resfit.models.wrn_net import PreActivatedBlock

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "counts.json").read_text())["networks"]
COUNTED = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.Linear,
    BasicBlock,
    PreActivatedBlock,
    SqueezeExcitation,
    PooledConv,
    ResidualConv,
)


def on_meta(spec: ModelSpec) -> tuple[nn.Module, torch.Tensor]:
    with torch.device("meta"):
        return build(spec), torch.empty(1, spec.channels, spec.image_size, spec.image_size)


def real_params(spec: ModelSpec) -> int:
    model, _ = on_meta(spec)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def real_macs(spec: ModelSpec) -> int:
    model, images = on_meta(spec)
    with FlopCounterMode(display=False) as counter:
        logits = model.eval()(images)
    assert logits.shape == (1, spec.classes)
    return counter.get_total_flops() // 2


def real_activations(spec: ModelSpec) -> int:
    model, images = on_meta(spec)
    outputs: list[int] = []
    for module in model.modules():
        if isinstance(module, COUNTED):
            module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.numel()))
    model.eval()(images)
    return sum(outputs)


def test_every_named_network_is_golden() -> None:
    assert set(GOLDEN) == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_params_are_those_of_the_source(name: str) -> None:
    spec = network(name)
    assert cost(spec).params == GOLDEN[name]["params"]
    assert real_params(spec) == GOLDEN[name]["params"]


@pytest.mark.parametrize("name", NETWORKS)
def test_macs_are_those_pytorch_counts(name: str) -> None:
    spec = network(name)
    assert cost(spec).macs == real_macs(spec)
    assert cost(spec).macs == GOLDEN[name].get("macs", cost(spec).macs)


ODD = (
    "separable:widths=8,16,24:blocks_per_stage=1,2,1:stem_width=4:kernel=5:se_reduction=4:dropout=0.5:conv_bias=true",
    "whitened:widths=8,12,20:blocks_per_stage=1,3,2:strides=2,1,3:classes=7:image_size=29",
    "wrn:widths=16,24:blocks_per_stage=2,1:se_reduction=8:shortcut_norm=true:dropout=0.3:image_size=31",
    "resnet:widths=8,12:blocks_per_stage=1,3:strides=2,3:pool=2:classes=7:channels=1:shortcut_kernel=3:image_size=29",
    "resnet:widths=8,12:blocks_per_stage=1,2:image_size=96:classes=37",
    "wrn:widths=8,12,16:blocks_per_stage=1,2,1:image_size=225:conv_bias=true",
    "separable:widths=8,12:blocks_per_stage=2,1:image_size=67:stem_stride=4:pool=2",
    "whitened:widths=8,12,20:blocks_per_stage=1,1,1:image_size=97",
)


@pytest.mark.parametrize("name", [*(n for n in NETWORKS if n not in ("wrn-28-10", "resnet-110")), *ODD])
def test_activations_are_those_the_modules_put_out(name: str) -> None:
    assert cost(network(name)).activations == real_activations(network(name))


@pytest.mark.parametrize("text", ODD)
def test_odd_specs_are_counted(text: str) -> None:
    spec = network(text)
    assert cost(spec).params == real_params(spec)
    assert cost(spec).macs == real_macs(spec)


@pytest.mark.parametrize("name", [n for n in GOLDEN if "memory_mb" in GOLDEN[n]])
def test_memory_is_as_printed(name: str) -> None:
    assert cost(network(name)).memory_mb == GOLDEN[name]["memory_mb"]
    assert cost(network(name)).weight_bytes == 4 * GOLDEN[name]["params"]
