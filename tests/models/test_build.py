"""The modules: seeds, shapes, layouts, precisions, gradients, compilation, and families from outside."""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from resfit.errors import UsageError
from resfit.models import families
from resfit.models.cost import Cost
from resfit.models.families import Family, build
from resfit.models.layers import SubsampledConv, drop_branches
from resfit.models.networks import network
from resfit.models.spec import ModelSpec, parse_spec
from resfit.models.wrn_net import PreActivatedBlock

TINY = {
    "resnet": "resnet:widths=8,16:blocks_per_stage=2,1:se_reduction=4:dropout=0.2",
    "wrn": "wrn:widths=8,16:blocks_per_stage=2,1:stem_width=4:se_reduction=4:dropout=0.2",
    "separable": "separable:widths=8,16:blocks_per_stage=2,1:se_reduction=4:dropout=0.2",
}
DROPS = TINY.copy()
TINY["whitened"] = "whitened:widths=8,16:blocks_per_stage=2,1"
each_family = pytest.mark.parametrize("text", TINY.values(), ids=TINY)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Forget the families looked up, before and after."""
    for cached in (families.find, families._attribute):
        cached.cache_clear()
    yield
    for cached in (families.find, families._attribute):
        cached.cache_clear()


def images(side: int = 32, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@each_family
def test_weights_are_a_function_of_the_seed_alone(text: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(parse_spec(text), seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again, other = build(parse_spec(text), seed=1).state_dict(), build(parse_spec(text), seed=2).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@each_family
def test_gradients_reach_every_parameter(text: str) -> None:
    model = build(parse_spec(text))
    nn.functional.cross_entropy(model(images()), torch.tensor([0, 1, 2])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@each_family
def test_gradients_are_right_in_spite_of_what_is_done_in_place(text: str) -> None:
    spec = dataclasses.replace(parse_spec(text), widths=(4, 6), image_size=5, classes=2, dropout=0.0)
    model = build(spec).double()  # in training, where BatchNorm's backward pass reads what it was given
    assert torch.autograd.gradcheck(model, (images(5, 2).double().requires_grad_(),))


@each_family
def test_layout_and_input_size_are_free(text: str) -> None:
    model = build(parse_spec(text)).eval()
    expected = model(images())
    got = model.to(memory_format=torch.channels_last)(images().to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert model(images(24)).shape == model(images(45)).shape == (3, 10)


@each_family
def test_autocast_trains(text: str) -> None:
    model = build(parse_spec(text))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images())
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@each_family
def test_one_graph_holds_the_whole_forward(text: str) -> None:
    model = build(parse_spec(text)).eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)  # no C++ compiler needed, breaks still found
    torch.testing.assert_close(compiled(images()), model(images()))


@pytest.mark.parametrize("text", DROPS.values(), ids=DROPS)
def test_dropout_acts_in_training_only(text: str) -> None:
    model = build(parse_spec(text))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert not torch.equal(model(images()), model(images()))
    model.eval()
    assert torch.equal(model(images()), model(images()))


def test_images_are_left_as_they_were() -> None:
    for text in TINY.values():
        given = images()
        build(parse_spec(text))(given)
        assert torch.equal(given, images())


def test_pool_of_three_leaves_the_last_row_and_column_unseen() -> None:
    spec = parse_spec("resnet:widths=4:blocks_per_stage=1:pool=3:image_size=4")
    model = build(spec).eval()
    seen = model.stages(model.norm(model.stem(images(4))).relu())[:, :, :3, :3].mean((2, 3))
    torch.testing.assert_close(model(images(4)), model.head(seen))


def test_wide_block_projects_the_activated_input() -> None:
    block = PreActivatedBlock(parse_spec("wrn:widths=6:blocks_per_stage=1:stem_width=4"), 4, 6, 2, 0.0).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 8, 8)
    assert len(block.shortcut) == 1
    torch.testing.assert_close(block(x), block.shortcut(block.norm1(x).relu()))


def test_default_device_is_kept() -> None:
    with torch.device("meta"):
        assert all(p.is_meta for p in build(network("r5")).parameters())
        assert build(network("resnet-8"), seed=3).head.weight.is_meta


@pytest.mark.usefixtures("fresh")
def test_wrong_count_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        families.FAMILIES, "resnet", Family("resfit.models.separable:cost", "resfit.models.resnet_net:build")
    )
    with pytest.raises(AssertionError, match="family resnet: build made 78042 parameters where cost counts"):
        build(network("resnet-8"))


class Flat(nn.Module):
    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.head = nn.Linear(spec.channels * spec.image_size**2, spec.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


def flat_cost(spec: ModelSpec) -> Cost:
    inputs = spec.channels * spec.image_size**2
    return Cost((inputs + 1) * spec.classes, inputs * spec.classes, spec.classes, inputs, inputs)


class Distribution:
    name = "resfit-flat"


class Entry:
    """What importlib.metadata gives for an entry point, without an installed package."""

    group = "resfit.families"
    value = "flat:FAMILY"
    dist = Distribution()

    def __init__(self, name: str, loaded: object) -> None:
        self.name, self.loaded = name, loaded

    def load(self) -> object:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.fixture
def installed(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resfit_flat", sys.modules[__name__])
    entries = [
        Entry("flat", Family("resfit_flat:flat_cost", "resfit_flat:Flat", stem_width=5)),
        Entry("broken", ImportError("no module\nnamed x")),
        Entry("strange", 3),
        Entry("hollow", Family("resfit_flat:nothing", "resfit_flat:Distribution.name")),
        Entry("resnet", 4),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [e for e in entries if e.group == group])


@pytest.mark.usefixtures("installed")
def test_family_from_outside() -> None:
    spec = parse_spec("flat:widths=1:blocks_per_stage=1")
    assert spec.stem_width == 5
    assert families.cost(spec).params == 30730
    assert build(spec)(images()).shape == (3, 10)
    assert families.names() == ["resnet", "wrn", "separable", "whitened", "flat", "broken", "strange", "hollow"]
    assert families.find("resnet") == families.FAMILIES["resnet"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "resfit-flat: its family 'broken' does not load (no module named x)."),
        ("strange", "resfit-flat: its family 'strange' is int, not a resfit.models.families.Family."),
        ("hollow", "resfit-flat: its family 'hollow' names 'resfit_flat:nothing', which does not load"),
    ],
)
def test_package_at_fault_is_named(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        families.cost(parse_spec(f"{name}:widths=1:blocks_per_stage=1"))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("stride", [2, 3])
def test_the_subsampled_projection_is_the_strided_convolution(stride: int) -> None:
    """And does not crash where torch 2.13's own backward pass does: few channels, channels last, 64x64."""
    ours = SubsampledConv(4, 8, 1, stride, bias=True)
    theirs = nn.Conv2d(4, 8, 1, stride)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 65, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x), theirs(x))
    narrow = build(parse_spec("resnet:widths=4,8:blocks_per_stage=1,1")).to(memory_format=torch.channels_last)
    narrow(images(64, 8).to(memory_format=torch.channels_last)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in narrow.parameters())


def test_stochastic_depth_grows_to_the_last_block_and_keeps_the_mean() -> None:
    model = build(parse_spec("resnet:widths=4,8:blocks_per_stage=2,3:stochastic_depth=0.5"))
    rates = [block.stochastic_depth for stage in model.stages for block in stage]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    torch.manual_seed(0)
    dropped = drop_branches(torch.ones(20_000, 2, 1, 1), 0.3)
    values, counts = dropped.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / 0.7]))
    assert counts[0].item() / 40_000 == pytest.approx(0.3, abs=0.013)  # four deviations of a share of 20,000
    assert torch.equal(dropped[:, 0], dropped[:, 1])  # an image's whole branch


@pytest.mark.parametrize("family", ["resnet", "wrn", "separable"])
def test_a_branch_that_is_always_dropped_leaves_the_shortcut(family: str) -> None:
    spec = parse_spec(f"{family}:widths=8:blocks_per_stage=2:stem_width=8:stochastic_depth=0.999999")
    block = build(spec).train().stages[0][1]
    x = torch.rand(4, 8, 6, 6)
    torch.testing.assert_close(block(x), x)
    assert not torch.allclose(block.eval()(x), x)
