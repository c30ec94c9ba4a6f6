"""The stem that shrinks larger images: by which rule, against PyTorch's own layers, and files written before there was one."""

import json
import tomllib

import pytest
import torch
from torch import nn

from resfit.errors import UsageError
from resfit.evaluation.config import read_config
from resfit.models.families import build, cost
from resfit.models.networks import network
from resfit.models.spec import ModelSpec, format_spec, parse_spec, resized, spec_from_dict, spec_to_dict
from resfit.recipe import Data, Recipe, parse_recipe, recipe_to_toml
from resfit.recipefile import load_recipe

TEXT = "resnet:widths=8,16:blocks_per_stage=1,1"


def images(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("size", "stride", "sides"),
    [
        (32, 1, (32, 32)),
        (64, 1, (64, 64)),
        (65, 2, (33, 33)),
        (96, 2, (48, 48)),
        (128, 2, (64, 64)),
        (129, 4, (65, 33)),
        (224, 4, (112, 56)),
    ],
)
def test_the_stem_follows_the_size(size: int, stride: int, sides: tuple[int, int]) -> None:
    for family in ("resnet", "wrn", "separable"):
        spec = ModelSpec(family, (8, 16), (1, 1), image_size=size)
        assert (spec.stem_stride, spec.stem_sides, spec.stages()[0].side_in) == (stride, sides, sides[1])
        assert build(spec).stem(images(size)).shape[-1] == sides[0]
    assert ModelSpec("whitened", (8, 16), (1, 1), image_size=size).stem_stride == 1


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("family", ["resnet", "wrn"])
def test_it_is_that_of_pytorchs_layers(family: str, stride: int) -> None:
    spec = ModelSpec(family, (8, 16), (1, 1), image_size=70, stem_stride=stride)
    model = build(spec).eval()
    normed = [model.norm, nn.ReLU()] if family == "resnet" else []
    plain = nn.Sequential(nn.Conv2d(3, spec.stem_width, 3, min(stride, 2), 1, bias=False), *normed)
    plain[0].load_state_dict(model.stem.state_dict())
    if stride == 4:
        plain.append(nn.MaxPool2d(3, 2, 1))
    last = model.stages(plain(images(70)))
    last = last if family == "resnet" else model.norm(last).relu()
    torch.testing.assert_close(model(images(70)), model.head(last.mean((2, 3))))
    assert cost(spec).params == cost(resized(network(format_spec(spec)), 32)).params  # a count holds at every size


def test_gradients_are_right_through_the_max_pool() -> None:
    spec = ModelSpec("resnet", (4, 6), (1, 1), image_size=9, stem_stride=4, classes=2)
    model = build(spec).double()
    assert torch.autograd.gradcheck(model, (images(9).double().requires_grad_(),))


def test_channels_last_trains_to_the_same_gradients() -> None:
    for family, size in (("resnet", 96), ("wrn", 160), ("separable", 224)):
        model = build(ModelSpec(family, (8, 16), (1, 1), image_size=size))
        grads = []
        for layout in (torch.contiguous_format, torch.channels_last):
            model.zero_grad()
            model.to(memory_format=layout)(images(size).to(memory_format=layout)).square().sum().backward()
            grads.append([p.grad.clone() for p in model.parameters()])
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


def test_text_leaves_out_the_rules_own_and_keeps_the_users() -> None:
    assert format_spec(parse_spec(f"{TEXT}:image_size=96:stem_stride=2")) == f"{TEXT}:image_size=96"
    for kept in (f"{TEXT}:image_size=96:stem_stride=1", f"{TEXT}:stem_stride=2"):
        assert format_spec(parse_spec(kept)) == kept


def test_of_another_size_the_stem_follows_unless_it_was_chosen() -> None:
    assert resized(parse_spec(TEXT), 96) == parse_spec(f"{TEXT}:image_size=96")
    assert resized(parse_spec(f"{TEXT}:image_size=224"), 32) == parse_spec(TEXT)
    assert resized(parse_spec(f"{TEXT}:stem_stride=2"), 224).stem_stride == 2
    with pytest.raises(UsageError, match=r"stem_stride: 4 is larger than image_size, 3\."):
        resized(parse_spec(f"{TEXT}:stem_stride=4:strides=1,1"), 3)


@pytest.mark.parametrize(
    ("what", "settings", "stride"),
    [
        ("r4-lighter", ["data.image_size=96"], 2),
        ("resnet-20", ["data.image_size=224"], 4),
        ("resnet-20", ["data.image_size=48"], 1),
        (f"{TEXT}:image_size=96", [], 2),
        (f"{TEXT}:stem_stride=1", ["data.image_size=96"], 1),
        (f"{TEXT}:stem_stride=1", ["data.image_size=96", "network.se_reduction=4"], 1),
        ("r4-lighter", ["data.image_size=224", "network.stem_stride=2"], 2),
        ("r4-lighter", ["network.stem_stride=1", "data.image_size=224"], 1),
        ("resnet-20", ["network.stem_stride=2"], 2),
        ("speed-cpu", ["data.image_size=96"], 1),  # whitened
    ],
)
def test_a_recipe_gives_the_size_to_the_stem(what: str, settings: list[str], stride: int) -> None:
    recipe = load_recipe(what, settings)
    assert recipe.network.stem_stride == stride
    again = parse_recipe(tomllib.loads(recipe_to_toml(recipe)), "again")
    assert again == recipe


def test_a_recipe_of_values_does_too() -> None:
    spec = parse_spec(TEXT)
    assert Recipe(name="a", network=spec, data=Data(image_size=96)).network.stem_stride == 2
    assert Recipe(name="a", network=TEXT, data=Data(image_size=96)).network.stem_stride == 2


def test_smaller_images_go_through_the_same_stem() -> None:
    recipe = load_recipe(TEXT, ["data.image_size=96", "resizing.sizes=[48]", "resizing.until=[0.5]"])
    assert build(recipe.network).eval()(images(48)).shape == (2, 10)
    small = ["data.image_size=160", "resizing.sizes=[8]", "resizing.until=[0.5]"]
    with pytest.raises(UsageError, match=r"strides: stage 3 strides by 2 over a map of side 1: image_size 8 is too"):
        load_recipe("resnet:widths=8,16,16:blocks_per_stage=1,1,1", small)


def test_a_file_of_before_has_no_stride_at_any_size(tmp_path) -> None:
    spec = parse_spec(f"{TEXT}:image_size=96:stem_stride=1")
    stored = spec_to_dict(spec)
    assert stored.pop("stem_stride") == 1
    pre = {"size": 96, "fit": "squash", "filter": "bicubic", "mean": [0, 0, 0], "std": [1, 1, 1]}
    (tmp_path / "config.json").write_text(json.dumps({"spec": stored, "class_names": ["a"], "preprocessing": pre}))
    assert read_config(tmp_path).spec == spec
    assert spec_from_dict(stored).stem_stride == 2  # what a person writes follows the rule
