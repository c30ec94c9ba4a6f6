"""Tables from a name in a recipe to a function, with the schema of its parameters; entry points of other packages add to them.

A line holds an import string and not the function, so that reading a recipe imports no torch.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from resfit.errors import UsageError, nearest


@dataclass(frozen=True)
class Technique:
    """An import string `module:function` and its parameters: name -> (type, default), checked by pydantic."""

    target: str
    params: Mapping[str, tuple[Any, Any]]
    by_epoch: bool = False  # an augmentation whose keys are the same in every epoch, and which is given `epoch`


Share = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Inside = Annotated[float, Field(gt=0, lt=1)]


def _rising(value: tuple[float, ...]) -> tuple[float, ...]:
    if not value or list(value) != sorted(set(value)):
        raise ValueError("must be one or more epochs, each later than the one before")
    return value


Milestones = Annotated[tuple[Positive, ...], AfterValidator(_rising)]
Strength = Annotated[float, Field(ge=0, le=10)]  # of a change by a factor in [1 - strength, 1 + strength]
Level = Annotated[int, Field(ge=0, le=255)]
Interpolation = Literal["nearest", "bilinear"]


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("The lower bound comes first")
    return bounds


Range = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
Shares = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], AfterValidator(_ordered)
]

# (images, keys, **params) -> images, in resfit.data.augment's manner. Applied in the recipe's order.
AUGMENTATIONS: dict[str, Technique] = {
    "crop": Technique(
        "resfit.data.augment:crop",
        {"padding": (Annotated[int, Field(ge=1, le=64)], 4), "mode": (Literal["reflect", "zeros"], "zeros")},
    ),
    "flip": Technique("resfit.data.augment:flip", {}),
    "alternating-flip": Technique("resfit.data.augment:alternating_flip", {}, by_epoch=True),
    "rotation": Technique(
        "resfit.data.geometry:rotation",
        {"degrees": (Annotated[float, Field(gt=0, le=180)], 15.0), "interpolation": (Interpolation, "nearest")},
    ),
    "affine": Technique(
        "resfit.data.geometry:affine",
        {
            "translate": (Annotated[float, Field(ge=0, le=1)], 0.1),  # of the side
            "degrees": (Annotated[float, Field(ge=0, le=180)], 0.0),
            "scale": (Range, (1.0, 1.0)),
            "shear": (Annotated[float, Field(ge=0, lt=90)], 0.0),  # degrees
            "interpolation": (Interpolation, "nearest"),
        },
    ),
    "color-jitter": Technique(
        "resfit.data.color:color_jitter",
        {
            "brightness": (Strength, 0.2),
            "contrast": (Strength, 0.2),
            "saturation": (Strength, 0.2),
            "hue": (Annotated[float, Field(ge=0, le=0.5)], 0.0),  # of the circle
        },
    ),
    "cutout": Technique(
        "resfit.data.augment:cutout", {"size": (Annotated[int, Field(ge=1, le=1024)], 16), "fill": (Level, 0)}
    ),
    "erasing": Technique(
        "resfit.data.augment:erasing",
        {
            "probability": (Annotated[float, Field(gt=0, le=1)], 0.5),
            "area": (Shares, (0.02, 0.4)),
            "ratio": (Range, (0.3, 1 / 0.3)),
            "fill": (Level, 0),
        },
    ),
    "auto-augment": Technique("resfit.data.policies:auto_augment", {}),
    "rand-augment": Technique(
        "resfit.data.policies:rand_augment",
        {"num_ops": (Annotated[int, Field(ge=1, le=8)], 2), "magnitude": (Annotated[int, Field(ge=0, le=30)], 9)},
    ),
    "trivial-augment": Technique("resfit.data.policies:trivial_augment", {}),
}

# (images float, targets (N, K), generator, **params) -> (images, targets). One or none a step, by their probabilities.
MIXES: dict[str, Technique] = {
    "mixup": Technique("resfit.data.mix:mixup", {"alpha": (Positive, 1.0), "probability": (Probability, 1.0)}),
    "cutmix": Technique("resfit.data.mix:cutmix", {"alpha": (Positive, 1.0), "probability": (Probability, 1.0)}),
}

# (params, lr, weight_decay, **params) -> torch.optim.Optimizer
OPTIMIZERS: dict[str, Technique] = {
    "sgd": Technique("resfit.training.optim:sgd", {"momentum": (Share, 0.9), "nesterov": (bool, True)}),
    "adam": Technique("resfit.training.optim:adam", {"betas": (tuple[Share, Share], (0.9, 0.999))}),
    "adamw": Technique("resfit.training.optim:adamw", {"betas": (tuple[Share, Share], (0.9, 0.999))}),
    "muon": Technique(
        "resfit.training.optim:muon",
        {
            "momentum": (Share, 0.95),
            "nesterov": (bool, True),
            "vector_scale": (Positive, 10.0),
            "vector_momentum": (Share, 0.95),
            "linear_scale": (Annotated[float, Field(ge=0)], 0.0),
            "normalize": (bool, False),
            "iterations": (Annotated[int, Field(ge=1, le=10)], 5),
        },
    ),
}

# (progress in [0, 1), epochs, **params) -> factor on the learning rate
SCHEDULES: dict[str, Technique] = {
    "cosine": Technique("resfit.training.schedule:cosine", {"end": (Share, 0.0)}),
    "step": Technique("resfit.training.schedule:step", {"every_epochs": (Positive, 10.0), "gamma": (Positive, 0.1)}),
    "multi-step": Technique(
        "resfit.training.schedule:multi_step", {"milestones": (Milestones, (30.0, 60.0)), "gamma": (Positive, 0.1)}
    ),
    "one-cycle": Technique(
        "resfit.training.schedule:one_cycle",
        {"peak": (Inside, 0.3), "start": (Probability, 0.04), "end": (Probability, 4e-6)},
    ),
    "triangular": Technique(
        "resfit.training.schedule:triangular",
        {"peak": (Inside, 0.25), "start": (Probability, 0.2), "end": (Probability, 0.0)},
    ),
    "warm-restarts": Technique(
        "resfit.training.schedule:warm_restarts",
        {
            "first_epochs": (Annotated[float, Field(ge=1)], 10.0),
            "growth": (Annotated[float, Field(ge=1)], 2.0),
            "end": (Share, 0.0),
        },
    ),
    # the only one that looks at results: what the validation loss makes of the rate is in TrainState
    "plateau": Technique(
        "resfit.training.schedule:constant",
        {
            "factor": (Annotated[float, Field(gt=0, lt=1)], 0.1),
            "patience": (Annotated[int, Field(ge=0)], 10),
            "threshold": (Share, 1e-4),
            "cooldown": (Annotated[int, Field(ge=0)], 0),
            "end": (Share, 0.0),
        },
    ),
}

TABLES = {"augmentations": AUGMENTATIONS, "mixes": MIXES, "optimizers": OPTIMIZERS, "schedules": SCHEDULES}


@cache
def table(kind: str) -> dict[str, Technique]:
    """Return the table `kind` ("augmentations", "mixes", "optimizers", "schedules") with what entry points `resfit.<kind>` add.

    An entry point names a `Technique`; one that is none, or that takes a name in use, raises UsageError naming its package.
    """
    merged = dict(TABLES[kind])
    for point in entry_points(group=f"resfit.{kind}"):
        package = point.dist.name if point.dist else point.value
        try:
            value = point.load()
        except Exception as error:  # anything can go wrong in a stranger's package, and its name is what helps
            raise UsageError(f"{package}: its entry point {point.name!r} does not load: {error}. Update it.") from error
        if not isinstance(value, Technique) or point.name in merged:
            why = "is not a resfit.plugins.Technique" if not isinstance(value, Technique) else "takes a name in use"
            raise UsageError(f"{package}: its entry point {point.name!r} in resfit.{kind} {why}. Remove or rename it.")
        merged[point.name] = value
    return merged


def technique(kind: str, name: str) -> Technique:
    """Return one line of a table; raises UsageError with the nearest names where there is none."""
    lines = table(kind)
    if name not in lines:
        raise UsageError(f"{name!r} is none of the {kind}.{nearest(name, lines)} Known: {', '.join(lines)}.")
    return lines[name]


def defaults(kind: str) -> dict[str, dict[str, Any]]:
    """Return the parameters of every technique of a table with their defaults."""
    return {name: {key: default for key, (_, default) in line.params.items()} for name, line in table(kind).items()}


def check_params(
    kind: str, name: str, given: Mapping[str, Any], where: str, beside: Iterable[str] = ()
) -> dict[str, Any]:
    """Return `given` with defaults filled in; raises UsageError, its key under `where`, for what does not fit.

    `beside` are the keys that stand in the same section and are not the technique's own: they help to guess a misspelt one.
    """
    try:
        return _schema(kind, name)(**given).model_dump()
    except ValidationError as error:
        raise UsageError(explain(error, [*technique(kind, name).params, *beside], where)) from error


def explain(error: ValidationError, known: Iterable[str], where: str = "") -> str:
    """Return pydantic's first complaint as one line `KEY: what is wrong.`, with the nearest of `known` for an unknown key."""
    order = {"extra_forbidden": 0, "missing": 2}  # a misspelt key is why another one is missing
    first, *rest = sorted(error.errors(include_url=False), key=lambda found: order.get(found["type"], 1))
    key = ".".join(str(part) for part in (where, *first["loc"]) if part != "")
    more = f" ({len(rest)} more like this.)" if rest else ""
    if first["type"] == "extra_forbidden":
        word, names = str(first["loc"][-1]), list(known)
        inner = [name for name in names if name.endswith(f".{word}")]
        hint = f" Did you mean {inner[0]!r}?" if inner else nearest(word, names)
        return f"{key}: no such key.{hint}{more}"
    if first["type"] == "missing":
        return f"{key}: is missing. Add it.{more}"
    got = "" if isinstance(first["input"], Mapping | BaseModel) else f", got {first['input']!r}"
    plain = {"dict_type": "must be a table of parameters, {} for its defaults", "tuple_type": "must be a list"}
    message = plain.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{key}: {message}{got}.{more}" if key else f"{message}{got}.{more}"


def function(kind: str, name: str) -> Callable[..., Any]:
    """Import and return the function behind a line of a table."""
    module, _, attribute = technique(kind, name).target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


@cache
def _schema(kind: str, name: str) -> type[BaseModel]:
    fields: dict[str, Any] = dict(technique(kind, name).params)
    return create_model(name, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)
