"""The layer table against forward hooks on the real modules, PyTorch's counter, and the closed-form totals."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resfit.errors import UsageError
from resfit.models import families
from resfit.models.families import Family, build, cost, layers
from resfit.models.layers import BasicBlock, SqueezeExcitation
from resfit.models.networks import NETWORKS, network
from resfit.models.spec import ModelSpec
from resfit.models.whitened_net import PooledConv, ResidualConv
from resfit.models.wrn_net import PreActivatedBlock

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
KINDS = {
    "SubsampledConv": "Conv2d",
    "Conv3x3": "Conv2d",
    "Whitening": "Conv2d",
    "BiasNorm": "BatchNorm2d",
}  # still the same
OTHERS = {
    "separable": "separable:widths=16,32:blocks_per_stage=2,1:conv_bias=true:kernel=5",
    "separable-se": "separable:widths=16,24:blocks_per_stage=1,2:se_reduction=4:image_size=15",
    "wrn-se": "wrn:widths=8,16:blocks_per_stage=2,1:stem_width=4:se_reduction=4:shortcut_norm=true:conv_bias=true",
    "grey": "resnet:widths=8,16:blocks_per_stage=1,1:strides=2,2:channels=1:image_size=28:classes=3:pool=3:dropout=0.1",
}
OTHERS |= {
    "larger": "resnet:widths=8,16,24:blocks_per_stage=1,2,1:image_size=96:se_reduction=4",
    "larger-wrn": "wrn:widths=8,16:blocks_per_stage=1,1:image_size=161:stem_width=4",
    "larger-separable": "separable:widths=8,16:blocks_per_stage=1,1:image_size=99:stem_stride=4",
    "whitened": "whitened:widths=16,24:blocks_per_stage=1,2:image_size=15",
    "whitened-unpooled": "whitened:widths=16,24:blocks_per_stage=2,1:strides=1,3:stem_width=8:channels=1:kernel=5",
}
CASES = {name: name for name in NETWORKS} | OTHERS


def hooked(spec: ModelSpec) -> tuple[list[tuple[str, str, tuple[int, ...], int]], dict[str, int]]:
    """Return (name, type, output shape, own params) as the forward passes end, and each module's macs by PyTorch's count."""
    with torch.device("meta"):
        model, images = build(spec), torch.empty(1, spec.channels, spec.image_size, spec.image_size)
    seen = []
    for name, module in model.named_modules():
        if isinstance(module, COUNTED):
            kind = KINDS.get(type(module).__name__, type(module).__name__)
            own = sum(p.numel() for p in module.parameters(recurse=False))
            module.register_forward_hook(
                lambda _module, _inputs, output, row=(name, kind, own): seen.append(
                    (row[0], row[1], tuple(output.shape[1:]), row[2])
                )
            )
    with FlopCounterMode(display=False) as counter:
        model.eval()(images)
    macs = {}
    for name, operations in counter.get_flop_counts().items():
        macs[name.partition(".")[2]] = sum(operations.values()) // 2
    return seen, macs


@pytest.mark.parametrize("name", CASES)
def test_every_row_is_the_real_modules(name: str) -> None:
    spec = network(CASES[name])
    rows, (seen, macs) = layers(spec), hooked(spec)
    assert [(row.name, row.kind, row.shape, row.params) for row in rows] == seen
    for row in rows:
        if row.kind in ("Conv2d", "Linear"):
            assert row.macs == macs[row.name], row
        else:
            assert row.macs == 0


@pytest.mark.parametrize("name", CASES)
def test_rows_add_up_to_the_closed_form(name: str) -> None:
    spec = network(CASES[name])
    rows, total = layers(spec), cost(spec)
    found = tuple(sum(getattr(row, key) for row in rows) for key in ("params", "macs", "outputs"))
    assert found == (total.params, total.macs, total.activations)


def test_a_family_from_outside_may_have_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Family("resfit.models.resnet:cost", "resfit.models.resnet_net:build")
    monkeypatch.setitem(families.FAMILIES, "plain", plain)
    with pytest.raises(UsageError, match="plain: names no function for its layers"):
        layers(ModelSpec("plain", (16,), (1,)))
    families.find.cache_clear()


def test_no_torch_is_needed() -> None:
    code = "import sys; from resfit.cli import main; main(['cost', 'wrn-28-10', '--layers']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
