"""Recipe: network, data, augmentation, optimisation and schedule as plain, checked data, and as TOML."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic import field_validator as check_field

from resfit.budget import Budget, parse_size
from resfit.errors import UsageError
from resfit.models.networks import network_fields
from resfit.models.spec import ModelSpec, resized, spec_from_dict, spec_to_dict
from resfit.plugins import check_params, explain


def to_spec(value: Any) -> ModelSpec:
    """Return the spec that a name, a text form, a table or a spec stands for. Raises UsageError."""
    if isinstance(value, ModelSpec):
        return value
    return spec_from_dict(network_fields(value) if isinstance(value, str) else value)


SMALLEST, LARGEST = 8, 512  # pixels of an image's side
Channel3 = tuple[float, float, float]


def as_whole(value: float) -> float:
    """Return an int where nothing is lost, so that 50.0 is written as 50."""
    return int(value) if value == int(value) else value


def _rising(value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)):
        raise ValueError("must be shares of training, each later than the one before")
    return value


Rising = Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], AfterValidator(_rising)]


class Section(BaseModel):
    """A part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """How images become numbers. Without mean and std (per channel, of pixels in [0, 1]) the training images give them.

    group_by is a regex: images whose ids have the same first named group (else first group, else match) of it stay together
    where splits are held out.
    """

    image_size: Annotated[int, Field(ge=SMALLEST, le=LARGEST)] | None = None
    resize: Literal["squash", "crop", "pad"] = "squash"  # how an image of another shape becomes a square; PixelRule
    val_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    mean: Channel3 | None = None
    std: Channel3 | None = None
    group_by: str | None = None

    @check_field("group_by")
    @classmethod
    def _regex(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return value or None

    @check_field("std")
    @classmethod
    def _positive(cls, value: Channel3 | None) -> Channel3 | None:
        if value is not None and min(value) <= 0:
            raise ValueError("must be above 0 in every channel")
        return value


class Named(Section):
    """A section whose `name` picks a technique; the technique's own parameters stand beside the common keys."""

    model_config = ConfigDict(extra="allow")
    kind: ClassVar[str]
    name: str

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        common = {key: given[key] for key in given if key in cls.model_fields}
        name = common.get("name", cls.model_fields["name"].default)
        own = {key: value for key, value in given.items() if key not in common}
        return common | check_params(cls.kind, name, own, cls.__name__.lower(), cls.model_fields)

    @property
    def params(self) -> dict[str, Any]:
        """Return the technique's own parameters."""
        return dict(self.model_extra or {})


class Optim(Named):
    """The optimizer; lr is the peak learning rate, clip_norm the largest gradient norm let through, sam_rho SAM's radius.

    `accumulate` parts of a batch, one after the other, give its gradient in that much less memory; BatchNorm sees the parts.
    on_divergence "rollback" goes back to the start of an epoch with half the rate when a value is not finite.
    """

    kind = "optimizers"
    name: str = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    sam_rho: Annotated[float, Field(ge=0)] = 0.0
    sam_adaptive: bool = False
    accumulate: Annotated[int, Field(ge=1)] = 1
    on_divergence: Literal["stop", "rollback"] = "stop"


class Schedule(Named):
    """The learning rate's course; warmup_epochs climb linearly to the peak first; it moves each step, or each epoch only.

    A warm-up climbs each step in either case.
    """

    kind = "schedules"
    name: str = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    interval: Literal["step", "epoch"] = "step"


class Train(Section):
    """How long and how: batch_size counts images of all ranks together, ema_decay is per step (0: no average).

    The last of 9.5 epochs ends after half of its steps. loss "auto" takes distributions as targets where labels are mixed, else
    class indices. class_weights "balanced" weighs each image by the inverse of its class's share of the training images, 1 on
    average; numbers are one for each class.
    early_stopping is the number of epochs without a better validation accuracy after which training ends (0: never).
    validate_every is the number of epochs from one look at the validation split to the next; the last epoch always has one. A
    precision that the device has not natively becomes what "auto" is there. compile and cuda_graphs cost seconds at the start.
    sync_batchnorm normalises with the moments of all processes' images together; in one process it is as ever.
    """

    epochs: Annotated[float, Field(ge=1, allow_inf_nan=False), AfterValidator(as_whole)] = 50
    batch_size: Annotated[int, Field(ge=2)] = 128
    loss: Literal["auto", "cross-entropy", "soft-cross-entropy"] = "auto"
    class_weights: Literal["none", "balanced"] | tuple[Annotated[float, Field(gt=0)], ...] = "none"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    early_stopping: Annotated[int, Field(ge=0)] = 0
    validate_every: Annotated[int, Field(ge=1)] = 1
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    cuda_graphs: bool = False
    sync_batchnorm: bool = False


class Resizing(Section):
    """Progressive resizing: images shrunk to `sizes[k]` pixels until the share `until[k]` of training, then whole.

    Howard 2018 (fast.ai's DAWNBench entry); Touvron et al. 2019, arXiv 1906.06423, on why the last epochs see whole images.
    """

    sizes: tuple[Annotated[int, Field(ge=SMALLEST)], ...] = ()
    until: Rising = ()

    @model_validator(mode="after")
    def _pairs(self) -> "Resizing":
        if len(self.sizes) != len(self.until):
            raise ValueError(
                f"has {len(self.sizes)} sizes and {len(self.until)} of until. Give one `until` for each size"
            )
        return self


class Freezing(Section):
    """Progressive freezing (Brock et al. 2017, FreezeOut, arXiv 1706.04983): stage k + 1 and all before it is trained until the
    share `until[k]` of training.
    """

    until: Rising = ()


class Distill(Section):
    """A trained teacher (a run or bundle folder) whose probabilities are learnt too, with `weight` of the loss.

    Both sides' logits are divided by `temperature` (Hinton et al. 2015, arXiv 1503.02531).
    """

    teacher: str | None = None
    temperature: Annotated[float, Field(gt=0)] = 4.0
    weight: Annotated[float, Field(gt=0, le=1)] = 0.9


class Recipe(Section):
    """Everything that decides a result but the data and the seed."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    network: Annotated[ModelSpec, PlainValidator(to_spec)]
    init: str | None = None  # a run or bundle whose weights training starts from; for other classes all but the head
    budget: Budget = Budget()
    data: Data = Data()
    augment: dict[str, dict[str, Any]] = {}
    mix: dict[str, dict[str, Any]] = {}
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    train: Train = Train()
    resizing: Resizing = Resizing()
    freezing: Freezing = Freezing()
    distill: Distill = Distill()
    tta: Literal["none", "flip", "flip-shift"] = "none"
    tta_below: Annotated[float, Field(gt=0, le=1)] = 1.0  # views only where the best class is less probable without

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, given: Any) -> Any:
        """Give a network that is named or a table the size of the data before what follows from the size is filled in."""
        data, spec = (given.get(key) for key in ("data", "network"))
        size = data.get("image_size") if isinstance(data, Mapping) else getattr(data, "image_size", None)
        if type(size) is not int or not SMALLEST <= size <= LARGEST or not isinstance(spec, str | Mapping):
            return given
        fields = network_fields(spec) if isinstance(spec, str) else spec
        return {**given, "network": {**fields, "image_size": size}}

    @check_field("augment", "mix", mode="before")
    @classmethod
    def _switches(cls, value: Any) -> Any:
        """Read `flip = true` as flip with its defaults, and `flip = false` as none."""
        if not isinstance(value, Mapping):
            return value
        return {name: {} if params is True else params for name, params in value.items() if params is not False}

    @check_field("augment")
    @classmethod
    def _augmentations(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: check_params("augmentations", name, params, f"augment.{name}") for name, params in value.items()}

    @check_field("mix")
    @classmethod
    def _mixes(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: check_params("mixes", name, params, f"mix.{name}") for name, params in value.items()}

    @check_field("budget", mode="before")
    @classmethod
    def _sizes(cls, value: Any) -> Any:
        """Read `5M` as people write it."""
        if not isinstance(value, Mapping):
            return value
        return {key: parse_size(size) if isinstance(size, str) else size for key, size in value.items()}

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        if self.data.image_size not in (None, self.network.image_size):
            sized = resized(self.network, self.data.image_size)
            object.__setattr__(self, "network", sized)  # data.image_size decides, and here is where the two meet
        if self.schedule.warmup_epochs >= self.train.epochs:
            warmup, epochs = self.schedule.warmup_epochs, self.train.epochs
            raise ValueError(
                f"schedule.warmup_epochs ({warmup:g}) must be below train.epochs ({epochs}). "
                f"Shorten it too: --set schedule.warmup_epochs={epochs / 10:g}"
            )
        _check_targets(self)
        _check_effects(self)
        _check_course(self)
        if {"flip", "alternating-flip"} <= set(self.augment):
            raise ValueError("augment.flip and augment.alternating-flip undo each other. Keep one")
        if self.network.channels != 3:
            raise ValueError("network.channels must be 3: images are brought to RGB")
        return self


def _check_targets(recipe: Recipe) -> None:
    """Refuse labels mixed more often than always, or mixed for a loss that cannot read them."""
    if not recipe.mix:
        return
    names = " and ".join(f"mix.{name}" for name in recipe.mix)
    if recipe.train.loss == "cross-entropy":
        raise ValueError(
            f"train.loss 'cross-entropy' reads one class an image, and {names} makes mixtures. Use 'soft-cross-entropy'"
        )
    total = sum(params["probability"] for params in recipe.mix.values())
    if total > 1 + 1e-9:
        raise ValueError(
            f"{names}: probabilities add up to {total:g}, and a step takes one at most. Lower `probability`"
        )


def _check_effects(recipe: Recipe) -> None:
    """Refuse settings of what is not switched on."""
    if recipe.distill.teacher is None and recipe.distill != Distill():
        raise ValueError("distill.teacher is missing, and the other keys of distill do nothing without. Name a run")
    if recipe.optim.sam_adaptive and not recipe.optim.sam_rho:
        raise ValueError(
            "optim.sam_adaptive does nothing while optim.sam_rho is 0. Set it too: --set optim.sam_rho=0.5"
        )
    if recipe.optim.accumulate > 1 and recipe.train.sync_batchnorm:
        raise ValueError(
            "train.sync_batchnorm wants a rank's images at once, and optim.accumulate parts. Drop one of the two"
        )
    if recipe.tta_below < 1 and recipe.tta == "none":
        raise ValueError("tta_below does nothing while tta is none. Set it too: --set tta=flip")


def _check_course(recipe: Recipe) -> None:
    """Refuse what resizes, freezes or leaves out epochs in a way that the network or the rest of the recipe cannot follow."""
    for size in recipe.resizing.sizes:
        if size >= recipe.network.image_size:
            raise ValueError(
                f"resizing.sizes: {size} is not below data.image_size ({recipe.network.image_size}). Shrink more"
            )
        replace(recipe.network, image_size=size)  # raises where the network cannot take it
    stages = len(recipe.network.widths)
    if len(recipe.freezing.until) >= stages:
        raise ValueError(
            f"freezing.until: has {len(recipe.freezing.until)} shares for {stages} stages. The last stage trains on"
        )
    looks = "train.early_stopping" if recipe.train.early_stopping else ""
    looks = "schedule.name 'plateau'" if recipe.schedule.name == "plateau" else looks
    if recipe.train.validate_every > 1 and looks:
        raise ValueError(f"train.validate_every must be 1: {looks} looks at the validation split after every epoch")


def parse_recipe(table: Mapping[str, Any], where: str) -> Recipe:
    """Return the checked recipe of a parsed TOML table; `where` names it in errors (UsageError)."""
    try:
        return Recipe(**{"name": "unnamed", **table})
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error, _keys(error.errors()[0]['loc'][:-1]))}") from error
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def recipe_to_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML that reads back as the same recipe."""
    table = recipe.model_dump(exclude_none=True, exclude={"network"})
    return tomli_w.dumps({"name": table.pop("name"), "network": spec_to_dict(recipe.network), **table})


def _keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys known at a place in the recipe."""
    model: Any = Recipe
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field else None
    fields: Mapping[str, Any] = getattr(model, "model_fields", None) or getattr(model, "__dataclass_fields__", {})
    if location:
        return list(fields)
    inner = [f"{name}.{key}" for name in fields for key in _keys((name,)) if name != "network"]
    return [*fields, *inner]  # --set lr=0.1: the section was forgotten
