"""Recipe: network, data, augmentation, optimisation and schedule as plain data, from TOML and `--set a.b=v`, and back."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic import field_validator as check_field

from resfit.budget import Budget, parse_size
from resfit.errors import UsageError, nearest
from resfit.models.networks import NETWORKS, network
from resfit.models.spec import ModelSpec, spec_from_dict, spec_to_dict
from resfit.plugins import check_params, explain

SHIPPED = files("resfit") / "recipes"


def _spec(value: Any) -> ModelSpec:
    if isinstance(value, ModelSpec):
        return value
    return network(value) if isinstance(value, str) else spec_from_dict(value)


Channel3 = tuple[float, float, float]


class Section(BaseModel):
    """A part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """How images become numbers. Without mean and std (per channel, of pixels in [0, 1]) the training images give them."""

    image_size: Annotated[int, Field(ge=8, le=512)] | None = None
    val_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    mean: Channel3 | None = None
    std: Channel3 | None = None

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
    """The optimizer; lr is the peak learning rate, clip_norm the largest gradient norm let through, sam_rho SAM's radius."""

    kind = "optimizers"
    name: str = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    sam_rho: Annotated[float, Field(ge=0)] = 0.0
    sam_adaptive: bool = False


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

    loss "auto" takes distributions as targets where labels are mixed, else class indices. early_stopping is the number of
    epochs without a better validation accuracy after which training ends (0: never).
    """

    epochs: Annotated[int, Field(ge=1)] = 50
    batch_size: Annotated[int, Field(ge=2)] = 128
    loss: Literal["auto", "cross-entropy", "soft-cross-entropy"] = "auto"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    early_stopping: Annotated[int, Field(ge=0)] = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


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
    network: Annotated[ModelSpec, PlainValidator(_spec)]
    budget: Budget = Budget()
    data: Data = Data()
    augment: dict[str, dict[str, Any]] = {}
    mix: dict[str, dict[str, Any]] = {}
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    train: Train = Train()
    distill: Distill = Distill()
    tta: Literal["none", "flip", "flip-shift"] = "none"

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
        if self.schedule.warmup_epochs >= self.train.epochs:
            warmup, epochs = self.schedule.warmup_epochs, self.train.epochs
            raise ValueError(
                f"schedule.warmup_epochs ({warmup:g}) must be below train.epochs ({epochs}). "
                f"Shorten it too: --set schedule.warmup_epochs={epochs / 10:g}"
            )
        _check_targets(self)
        _check_effects(self)
        if {"flip", "alternating-flip"} <= set(self.augment):
            raise ValueError("augment.flip and augment.alternating-flip undo each other. Keep one")
        if self.network.channels != 3:
            raise ValueError("network.channels must be 3: images are brought to RGB")
        if self.data.image_size not in (None, self.network.image_size):
            sized = replace(self.network, image_size=self.data.image_size)
            object.__setattr__(self, "network", sized)  # data.image_size decides, and here is where the two meet
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


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in SHIPPED.iterdir() if item.name.endswith(".toml"))


def recipe_titles() -> dict[str, str]:
    """Return what each shipped recipe is, by name: its header up to the source."""
    texts = {name: (SHIPPED / f"{name}.toml").read_text(encoding="utf-8") for name in recipe_names()}
    heads = {name: text.partition("\n# Source:")[0].split("\n") for name, text in texts.items()}
    return {name: " ".join(line.lstrip("# ") for line in lines) for name, lines in heads.items()}


def load_recipe(what: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return a recipe from a TOML file, a shipped recipe's name, or a network's name or text form (then `default` trains it).

    `overrides` are settings `key=value` by recipe key, e.g. `optim.lr=0.2`. Raises UsageError with one line.
    """
    text, where = str(what), str(what)
    if isinstance(what, Path) or text.endswith(".toml") or "/" in text or text in recipe_names():
        table = _table(what)
    else:
        try:
            spec = network(text)
        except UsageError as error:
            if ":" in text:
                raise
            near = nearest(text, [*recipe_names(), *NETWORKS])
            raise UsageError(f"{text}: no recipe or network of that name.{near} `resfit list` shows all.") from error
        table = tomllib.loads((SHIPPED / "default.toml").read_text())
        table |= {"name": text if ":" not in text else spec.family, "network": spec}
    for setting in sorted(overrides, key=_rank):
        _override(table, setting)
    return parse_recipe(table, where)


def _table(what: str | Path, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the table of a recipe's file or shipped name, laid over that of its `base` where it names one.

    Sections add to the base's, key by key; `augment` and `mix` replace the base's. A base that is a path is read from the
    folder of the file that names it.
    """
    shipped = isinstance(what, str) and what in recipe_names()
    own = tomllib.loads((SHIPPED / f"{what}.toml").read_text()) if shipped else _read(Path(what))
    own = {"name": Path(what).name.removesuffix(".toml"), **own}
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str) or (base not in recipe_names() and not base.endswith(".toml")):
        near = nearest(str(base), recipe_names())
        raise UsageError(f"{what}: base: {base!r} is no shipped recipe and no .toml file.{near}")
    if base in below or len(below) > 8:
        raise UsageError(f"{what}: base: {base!r} leads back to itself. Name another.")
    table = _table(base if base in recipe_names() else Path(what).parent / base, (*below, base))
    for key, value in own.items():
        inner = table.get(key)
        if key in ("augment", "mix") or not (isinstance(value, Mapping) and isinstance(inner, dict)):
            table[key] = value
            continue
        for part in sorted(value, key=lambda part: part != "name"):
            _put(key, inner, part, value[part])
    return table


def _put(section: str, table: dict[str, Any], key: str, value: Any) -> None:
    """Set a key of a section; another technique's name takes the old one's own parameters away."""
    named: type[Named] | None = {"optim": Optim, "schedule": Schedule}.get(section)  # type: ignore[assignment]
    if named is not None and key == "name" and value != table.get("name", named.model_fields["name"].default):
        for old in table.keys() - named.model_fields.keys():
            del table[old]
    table[key] = value


def as_recipe(what: str | Path | Recipe, settings: Sequence[str]) -> Recipe:
    """Return `what` if it is a Recipe, else the one `load_recipe` makes of it; a Recipe takes no settings (UsageError)."""
    if not isinstance(what, Recipe):
        return load_recipe(what, settings)
    if settings:
        raise UsageError("settings: a Recipe is complete. Use its model_copy, or give a name or file with settings.")
    return what


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


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}. Name a recipe file, or see `resfit list`.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not valid TOML: {error}. Mend that line.") from error


def _rank(setting: str) -> bool:
    """Order settings: what chooses a technique or a network goes before the parameters of what was chosen."""
    key = setting.partition("=")[0].strip()
    return "." in key and not key.endswith(".name")


def _override(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {setting}: write it as key=value, for example --set optim.lr=0.2.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word, as people type it: --set optim.name=adamw
    *parents, last = key.strip().split(".")
    if parents == ["network"] and not isinstance(table.get("network", {}), Mapping):
        table["network"] = spec_to_dict(_spec(table["network"]))
    if key.strip() == "network.image_size":
        raise UsageError(f"--set {setting}: the data decides it. Set data.image_size.")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {setting}: {parent} is a single value. See `resfit train --help`.")
    _put(".".join(parents), table, last, value)


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
