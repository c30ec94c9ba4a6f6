"""The table of network families, and `cost` and `build`, which look a spec's family up in it. No torch at import.

A package from outside adds a family by an entry point of the group `resfit.families` that names a `Family`.
"""

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from resfit.errors import UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from torch import nn

    from resfit.models.cost import Cost, Parts
    from resfit.models.layertable import Layer
    from resfit.models.spec import ModelSpec


class Family(NamedTuple):
    """Where a family's functions are ("module:function"), and the defaults of a spec that differ between families."""

    cost: str
    build: str
    stem_width: int = 0  # 0: as wide as the first stage
    shortcut_norm: bool = True
    layers: str = ""  # as cost, but its layers one by one; a family from outside may leave it out
    first_stride: int = 1  # of the first stage, where a spec gives no strides
    parts: str = ""  # its block and ends (cost.Parts), for `design`; "" where it is not searched
    check: str = ""  # refuses, by UsageError, a spec that the family cannot build; "" where it can build all
    strided_stem: bool = False  # whether its stem follows stem_stride; else that is 1


FAMILIES: dict[str, Family] = {
    "resnet": Family(
        "resfit.models.resnet:cost",
        "resfit.models.resnet_net:build",
        layers="resfit.models.resnet:layers",
        parts="resfit.models.resnet:PARTS",
        strided_stem=True,
    ),
    "wrn": Family(
        "resfit.models.wrn:cost",
        "resfit.models.wrn_net:build",
        16,
        shortcut_norm=False,
        layers="resfit.models.wrn:layers",
        parts="resfit.models.wrn:PARTS",
        strided_stem=True,
    ),
    "separable": Family(
        "resfit.models.separable:cost",
        "resfit.models.separable_net:build",
        layers="resfit.models.separable:layers",
        parts="resfit.models.separable:PARTS",
        strided_stem=True,
    ),
    "whitened": Family(
        "resfit.models.whitened:cost",
        "resfit.models.whitened_net:build",
        24,
        layers="resfit.models.whitened:layers",
        first_stride=2,
        check="resfit.models.whitened:check",
    ),
}
GROUP = "resfit.families"


def check(spec: "ModelSpec") -> None:
    """Refuse a spec that its family cannot build. Raises UsageError."""
    if where := _family(spec.family).check:
        _function(spec.family, where)(spec)


def cost(spec: "ModelSpec") -> "Cost":
    """Count what `spec` costs, in closed form and without torch."""
    counted: Cost = _function(spec.family, _family(spec.family).cost)(spec)
    return counted


def layers(spec: "ModelSpec") -> "list[Layer]":
    """List the layers of `spec` in forward order, without torch; their counts add up to `cost`. Raises UsageError."""
    where = _family(spec.family).layers
    if not where:
        raise UsageError(f"{spec.family}: names no function for its layers. Take the totals, without --layers.")
    return list(_function(spec.family, where)(spec))


def parts(name: str) -> "Parts":
    """Return what the networks of a family are made of. Raises UsageError where it does not say."""
    where = _family(name).parts
    if not where:
        searched = ", ".join(known for known in names() if (other := find(known)) and other.parts)
        raise UsageError(
            f"{name}: does not say what its blocks cost, so that it cannot be searched. Use one of {searched}."
        )
    found: Parts = _attribute(name, where)
    return found


def build(spec: "ModelSpec", seed: int = 0) -> "nn.Module":
    """Build the network of `spec`: (N, channels, side, side) float images to (N, classes) logits.

    The weights are drawn as PyTorch does by default, on the CPU, from `seed` alone, and moved to the default device
    (`with torch.device(...)`; on "meta" none is drawn); the caller's generators are left as they were.
    """
    import torch

    device = torch.get_default_device()
    make = _function(spec.family, _family(spec.family).build)
    with torch.random.fork_rng(devices=[]), torch.device("meta" if device.type == "meta" else "cpu"):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every accelerator too
        model: nn.Module = make(spec)
    real, counted = sum(p.numel() for p in model.parameters() if p.requires_grad), cost(spec).params
    if real != counted:
        raise AssertionError(f"family {spec.family}: build made {real} parameters where cost counts {counted}: {spec}")
    return model.to(device)


def names() -> list[str]:
    """List every family: the built-in ones, then those of installed packages."""
    return [*FAMILIES, *(entry.name for entry in _entries() if entry.name not in FAMILIES)]


@functools.cache
def find(name: str) -> Family | None:
    """Look a family up, in the table first; None where there is none. Raises UsageError, naming a package at fault."""
    if name in FAMILIES:
        return FAMILIES[name]
    entry = next((entry for entry in _entries() if entry.name == name), None)
    if entry is None:
        return None
    try:
        family = entry.load()
    except Exception as error:  # whatever a foreign package raises, the reader needs its name
        raise _fault(name, f"does not load ({error})") from error
    if not isinstance(family, Family):
        raise _fault(name, f"is {type(family).__name__}, not a resfit.models.families.Family")
    return family


def _family(name: str) -> Family:
    family = find(name)
    assert family is not None, name  # a spec cannot be made with an unknown family
    return family


def _entries() -> "list[EntryPoint]":
    from importlib.metadata import entry_points  # slow to import, and no built-in family needs it

    return list(entry_points(group=GROUP))


@functools.cache
def _attribute(name: str, where: str) -> Any:
    module, _, attribute = where.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:
        if name in FAMILIES:
            raise
        raise _fault(name, f"names {where!r}, which does not load ({error})") from error


def _function(name: str, where: str) -> Callable[..., Any]:
    found = _attribute(name, where)
    if not callable(found):
        raise _fault(name, f"names {where!r}, which is no function")
    function: Callable[..., Any] = found
    return function


def _fault(name: str, what: str) -> UsageError:
    entry = next((entry for entry in _entries() if entry.name == name), None)
    package = entry.dist.name if entry and entry.dist else entry.value if entry else name
    return UsageError(" ".join(f"{package}: its family {name!r} {what}. Repair or remove that package.".split()))
