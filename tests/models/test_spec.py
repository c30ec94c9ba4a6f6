"""`ModelSpec` is always valid and resolved, and survives its text and dictionary forms."""

import dataclasses
import json
import pickle
import subprocess
import sys
import tomllib
from typing import Any

import pytest
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from resfit.errors import UsageError
from resfit.models.families import build, cost
from resfit.models.networks import NETWORKS, network
from resfit.models.spec import FIELDS, ModelSpec, format_spec, parse_spec, spec_from_dict, spec_to_dict

SMALL: dict[str, Any] = {"family": "resnet", "widths": [8, 16], "blocks_per_stage": [1, 1]}


def test_defaults_are_filled_in() -> None:
    spec = ModelSpec(**SMALL)
    assert (spec.widths, spec.strides, spec.stem_width, spec.shortcut_norm) == ((8, 16), (1, 2), 8, True)
    wide = dataclasses.replace(spec, family="wrn", stem_width=None, shortcut_norm=None)
    assert (wide.stem_width, wide.shortcut_norm) == (16, False)
    assert type(ModelSpec(**SMALL, dropout=0).dropout) is float


def test_replace_keeps_the_rest_and_checks_again() -> None:
    spec = dataclasses.replace(network("r4-lighter"), classes=100, image_size=64)
    assert (spec.classes, spec.image_size, spec.stem_width, spec.features) == (100, 64, 64, 256 * 4)
    with pytest.raises(UsageError, match=r"^pool: 8 is larger than the last map, of side 4\."):
        dataclasses.replace(spec, image_size=16)
    with pytest.raises(UsageError, match=r"^blocks_per_stage: 3 given for 2 widths\."):
        dataclasses.replace(spec, widths=(64, 128))


def test_values_are_values() -> None:
    spec = ModelSpec(**SMALL)
    assert spec == ModelSpec("resnet", (8, 16), (1, 1), (1, 2), 8)
    assert len({spec, ModelSpec(**SMALL)}) == 1
    assert pickle.loads(pickle.dumps(spec)) == spec
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.classes = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", NETWORKS)
def test_named_networks_survive_their_forms(name: str) -> None:
    spec = network(name)
    assert format_spec(spec) == NETWORKS[name]
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(spec)))) == spec
    assert spec_from_dict(tomllib.loads(tomli_w.dumps(spec_to_dict(spec)))) == spec


def test_dictionary_has_every_field_in_order() -> None:
    large = dataclasses.replace(network("r5"), image_size=65)
    assert tuple(spec_to_dict(large)) == FIELDS
    assert tuple(spec_to_dict(network("r5"))) == FIELDS[:-1] == tuple(name for name in FIELDS if name != "stem_stride")
    assert spec_to_dict(network("r5"))["widths"] == [32, 64, 128, 256]


def test_text_form_is_that_of_the_readme() -> None:
    text = "resnet:widths=64,128,256:blocks_per_stage=2,2,2:stem_width=64:pool=8"
    assert parse_spec(text) == network(text) == network("r4-lighter")
    assert format_spec(ModelSpec("wrn", (8,), (1,), dropout=0.25, shortcut_norm=True, classes=3)) == (
        "wrn:widths=8:blocks_per_stage=1:dropout=0.25:shortcut_norm=true:classes=3"
    )


def test_patterns() -> None:
    assert network("wrn-28-3.5") == network("r3")
    assert network("wrn-40-2") == network("wrn-40-2.0")
    assert network("resnet-20").blocks_per_stage == (3, 3, 3)
    assert network("resnet-1202").blocks_per_stage == (200, 200, 200)
    assert network("r2-final") == network("r2-6")


BAD_FIELDS: list[tuple[str, Any]] = [
    ("family", "resnt"),
    ("family", 3),
    ("family", ["resnet"]),
    ("widths", []),
    ("widths", 8),
    ("widths", "8,16"),
    ("widths", None),
    ("widths", [8, 0]),
    ("widths", [8, -16]),
    ("widths", [8, 16.0]),
    ("widths", [8, True]),
    ("widths", [8, "16"]),
    ("blocks_per_stage", [1]),
    ("blocks_per_stage", [1, 1, 1]),
    ("blocks_per_stage", [1, 0]),
    ("blocks_per_stage", None),
    ("strides", [1]),
    ("strides", [0, 1]),
    ("strides", [1, 33]),
    ("strides", {"a": 1}),
    ("stem_width", 0),
    ("stem_width", "a\nb"),
    ("kernel", 2),
    ("kernel", 0),
    ("kernel", True),
    ("kernel", 3.0),
    ("shortcut_kernel", 0),
    ("shortcut_kernel", None),
    ("pool", -1),
    ("pool", 17),
    ("pool", False),
    ("se_reduction", -1),
    ("se_reduction", 9),
    ("dropout", 1.0),
    ("dropout", 1),
    ("dropout", -0.1),
    ("dropout", float("nan")),
    ("dropout", True),
    ("dropout", "0.5"),
    ("conv_bias", 1),
    ("conv_bias", "true"),
    ("shortcut_norm", 0),
    ("classes", 0),
    ("classes", "ten"),
    ("channels", 0),
    ("image_size", 0),
    ("image_size", 32.0),
    ("image_size", None),
    ("stem_stride", 0),
    ("stem_stride", 3),
    ("stem_stride", True),
    ("stem_stride", 2.0),
    ("stem_stride", "2"),
]


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_bad_field_is_named_in_one_line(field: str, value: object) -> None:
    with pytest.raises(UsageError) as raised:
        spec_from_dict({**SMALL, field: value})
    assert str(raised.value).startswith(f"{field}: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 240


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"family": "resnt"},
            "family: 'resnt' is not known. Did you mean 'resnet'? Use one of resnet, wrn, separable, whitened.",
        ),
        ({"kernel": 4}, "kernel: must be odd, to keep the size of a map, not 4."),
        (
            {"shortcut_kernel": 2, "stem_width": 4},
            "shortcut_kernel: 2 makes a map of side 31 in stage 1, where the branch has 32. Use an odd one.",
        ),
        (
            {"shortcut_kernel": 2, "image_size": 31},
            "shortcut_kernel: 2 makes a map of side 15 in stage 2, where the branch has 16. Use an odd one.",
        ),
        ({"se_reduction": 16}, "se_reduction: 16 is larger than the width 8. Use at most that."),
        (
            {"image_size": 1},
            "strides: stage 2 strides by 2 over a map of side 1: image_size 1 is too small for it."
            " Use smaller strides, fewer stages or larger images.",
        ),
        (
            {"image_size": 2, "stem_stride": 2, "strides": [2, 1]},
            "strides: stage 1 strides by 2 over a map of side 1: image_size 2 is too small for it after a stem_stride of 2."
            " Use smaller strides, fewer stages or larger images.",
        ),
        ({"image_size": 3, "stem_stride": 4}, "stem_stride: 4 is larger than image_size, 3. Use a smaller one."),
        (
            {"family": "whitened", "stem_stride": 2},
            "stem_stride: the family whitened has 1 only. Leave it out, or take resnet.",
        ),
        ({"pool": 17}, "pool: 17 is larger than the last map, of side 16. Use at most that, or 0: global."),
        ({"dropout": 1}, "dropout: must be a number from 0 up to, and not including, 1, not 1."),
        ({"kernal": 3}, "kernal: is no field of a network. Did you mean 'kernel'?"),
        ({"widths": [8, 16, 32]}, "blocks_per_stage: 2 given for 3 widths. Give one for each width."),
    ],
)
def test_messages(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        spec_from_dict(SMALL | changes)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet", "resnet: unknown network. Did you mean"),
        ("r4-lightr", "r4-lightr: unknown network. Did you mean 'r4-lighter'"),
        ("", "'': unknown network. `resfit list` shows all."),
        ("a\nb", r"a\nb: unknown network."),
        ("resnet-21", "resnet-21: a depth of 21 does not exist. It must be 6n + 2: 8, 14, ..."),
        ("resnet-2", "resnet-2: a depth of 2 does not exist."),
        ("wrn-28-0", "widths: must be a whole number, 1 or more, not 0."),
        ("wrn-27-2", "wrn-27-2: a depth of 27 does not exist. It must be 6n + 4: 10, 16, ..."),
        ("resnet:", "'': is not a setting. Write name=value, with a colon between two of them."),
        ("resnet:widths", "'widths': is not a setting."),
        ("resnet:widths=8", "blocks_per_stage: is missing."),
        ("resnet:blocks_per_stage=8", "widths: is missing."),
        ("resnet:width=8:blocks_per_stage=1", "width: is no field of a network. Did you mean 'widths'"),
        ("resnet:widths=8:widths=8:blocks_per_stage=1", "widths: is given twice."),
        ("resnet:widths=8:family=wrn:blocks_per_stage=1", "family: is given twice."),
        ("resnet:widths=8,:blocks_per_stage=1,1", "widths: must be a whole number, not ''."),
        ("resnet:widths=1_0:blocks_per_stage=1", "widths: must be a whole number, not '1_0'."),
        ("resnet:widths=8:blocks_per_stage=1:pool=2.5", "pool: must be a whole number, not '2.5'."),
        ("resnet:widths=8:blocks_per_stage=1:dropout=x", "dropout: must be a number"),
        ("resnet:widths=8:blocks_per_stage=1:conv_bias=1", "conv_bias: must be true or false, not '1'."),
        ("resnt:widths=8:blocks_per_stage=1", "family: 'resnt' is not known. Did you mean 'resnet'"),
    ],
)
def test_bad_text_is_explained_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        network(text)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("values", [None, 3, "resnet", [], {}, {"family": "resnet"}])
def test_what_is_no_table_is_refused(values: Any) -> None:
    with pytest.raises(UsageError, match=r"^(spec|family|widths): "):
        spec_from_dict(values)


@st.composite
def specs(draw: st.DrawFn) -> ModelSpec:
    """Draw a valid spec of any family: every draw is valid by how it is made, none is filtered."""
    stages = draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=stages, max_size=stages))

    widths = sizes(1, 12)
    family = draw(st.sampled_from(["resnet", "wrn", "separable"]))
    image_size, stem_stride = (
        draw(st.one_of(st.integers(8, 20), st.integers(64, 224))),
        draw(st.sampled_from([1, 2, 4])),
    )
    strides = sizes(1, 2 if image_size // stem_stride > 4 else 1)
    side = {1: image_size, 2: (image_size + 1) // 2, 4: (image_size + 3) // 4}[stem_stride]
    for stride in strides:
        side = (side - 1) // stride + 1
    return ModelSpec(
        family,
        tuple(widths),
        tuple(sizes(1, 3)),
        tuple(strides),
        stem_width=draw(st.integers(1, 12)),
        kernel=draw(st.sampled_from([1, 3, 5])),
        shortcut_kernel=draw(st.sampled_from([1, 3])),
        pool=draw(st.integers(0, side)),
        se_reduction=draw(st.integers(0, min(widths))),
        dropout=draw(st.floats(0, 0.99, allow_subnormal=False)),
        conv_bias=draw(st.booleans()),
        shortcut_norm=draw(st.booleans()),
        classes=draw(st.integers(1, 20)),
        channels=draw(st.integers(1, 4)),
        image_size=image_size,
        stem_stride=stem_stride,
    )


@given(specs())
@settings(max_examples=60, deadline=None)
def test_any_spec_is_counted_and_survives_its_forms(spec: ModelSpec) -> None:
    with torch.device("meta"):
        model, images = build(spec).eval(), torch.empty(1, spec.channels, spec.image_size, spec.image_size)
    with FlopCounterMode(display=False) as counter:
        assert model(images).shape == (1, spec.classes)
    assert counter.get_total_flops() == 2 * cost(spec).macs
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == cost(spec).params
    assert parse_spec(format_spec(spec)) == spec
    assert spec_from_dict(spec_to_dict(spec)) == spec


def test_counting_imports_no_torch() -> None:
    code = (
        "import sys, resfit.models.networks as n, resfit.models.families as f\n"
        "f.cost(n.network('r5')); f.cost(n.network('r3')); f.cost(n.network('separable:widths=8:blocks_per_stage=1'))\n"
        "print([m for m in ('torch', 'numpy', 'importlib.metadata') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
