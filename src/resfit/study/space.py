"""A space: a recipe of which some keys vary, read from a TOML file. No torch, no engine.

A space file is a recipe file (its own keys, over a `base`) with two tables more. `[search]` says how it is searched
(`Search`). `[vary]` gives recipe keys the values they may take: a list of choices, or `{low, high, step, log}`. Of
`network.widths` and `network.blocks_per_stage` such a range is every stage's own, and `network.stages` may vary their number.
The key `recipe` replaces the base as a whole.
"""

import copy
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resfit.errors import UsageError, nearest
from resfit.plugins import explain
from resfit.recipe import Recipe, parse_recipe
from resfit.recipefile import apply_setting, lay_over, read_toml, read_value, setting_order

SHIPPED = files("resfit") / "spaces"
STAGED = ("network.widths", "network.blocks_per_stage")
STAGES, STRIDES = "network.stages", "network.strides"


class Search(BaseModel):
    """How a space is searched.

    mode "one-at-a-time" trains the base and then every value of every key, the others left as they are. pruning stops trials
    that fall behind after an epoch (Li et al. 2018, ASHA, arXiv 1810.05934; Li et al. 2016, Hyperband, arXiv 1603.06560). The
    best `finalists` trials are trained with `seeds` seeds altogether, and the mean decides; one at a time, every row is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    mode: Literal["search", "one-at-a-time"] = "search"
    sampler: Literal["tpe", "random"] = "tpe"
    pruning: Literal["asha", "hyperband", "none"] = "asha"
    finalists: Annotated[int, Field(ge=1)] = 3
    seeds: Annotated[int, Field(ge=1)] = 3
    seed: Annotated[int, Field(ge=0)] = 0


PLAIN = Search()


class Range(BaseModel):
    """Numbers from low to high, both included; whole numbers where low, high and step are; log: drawn by their logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether all its numbers are whole."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))


Values = Range | tuple[Any, ...]


class Row(NamedTuple):
    """A recipe of a study that lists them, and what it is called."""

    label: str
    recipe: Recipe


@dataclass(frozen=True)
class Space:
    """What `load_space` reads: the recipe's own keys (over their `base`), settings over them, what varies, how it is searched.

    `where` is the file or shipped name: a base that is a path lies beside it.
    """

    name: str
    own: Mapping[str, Any]
    vary: Mapping[str, Values]
    search: Search = PLAIN
    settings: tuple[str, ...] = ()
    where: str = "space"

    def text(self) -> str:
        """Return what is searched as TOML: two spaces with the same text are the same."""
        vary = {
            key: value.model_dump(exclude_none=True) if isinstance(value, Range) else list(value)
            for key, value in self.vary.items()
        }
        return tomli_w.dumps({**self.own, "settings": self.settings, "search": self.search.model_dump(), "vary": vary})

    def recipe(self, point: Mapping[str, Any], name: str | None = None) -> Recipe:
        """Return the recipe of a point: a value by key; by `KEY.n` where KEY is every stage's own. Raises UsageError."""
        own = copy.deepcopy(dict(self.own))
        if "recipe" in point:
            own["base"] = point["recipe"]
        table = lay_over(own, self.where)
        given = [(key.strip(), read_value(value)) for key, _, value in (text.partition("=") for text in self.settings)]
        varied = [(key, value) for key, value in _joined(point).items() if key != "recipe"]
        for key, value in sorted([*given, *varied], key=lambda item: setting_order(item[0])):
            apply_setting(table, key, value, key)
            if key == STAGED[0] and STAGES in self.vary and STRIDES not in self.vary:
                table["network"].pop("strides", None)  # those of the base are for its number of stages
        return parse_recipe(table | {"name": name or self.name}, self.name)

    def point(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Return the point of values as a database keeps them: choices that are no plain value by their text."""
        point = dict(drawn)
        for key, values in self.vary.items():
            if key in point and not isinstance(values, Range):
                point[key] = next(value for value in values if plain(value) == point[key])
        return point

    def first(self) -> dict[str, Any]:
        """Return the point of each key's first or lowest value."""
        point: dict[str, Any] = {}
        for key, values in self.vary.items():
            point |= _of(self, key, values.low if isinstance(values, Range) else values[0])
        return point

    def rows(self) -> list[Row]:
        """Return the recipes of a study of one change at a time: the base first. Raises UsageError for a range without end."""
        base = {} if "recipe" not in self.vary else {"recipe": listed("recipe", self.vary["recipe"])[0]}
        found = [] if base else [Row("base", self.recipe({}))]
        for key, values in self.vary.items():
            for value in listed(key, values):
                label = str(value) if key in ("recipe", "network") else f"{key}={_shown(value)}"
                row = Row(label, self.recipe(base | {key: value}, label if key == "recipe" else None))
                if row.recipe not in [other.recipe for other in found]:
                    found.append(row)
        return found


def plain(value: Any) -> str | int | float:
    """Return a choice as a database keeps it."""
    return value if isinstance(value, str | int | float) else repr(value)


def listed(key: str, values: Values) -> list[Any]:
    """Return every value. Raises UsageError for a range without a step, or of every stage's own."""
    if not isinstance(values, Range):
        return list(values)
    step = values.step or (1 if values.whole else None)
    if step is None or key in STAGED:
        raise UsageError(f"vary.{key}: has no end of values, and one at a time needs each. List them.")
    return [values.low + step * number for number in range(int((values.high - values.low) / step + 1e-9) + 1)]


def space_names() -> list[str]:
    """Return the names of the shipped spaces, sorted."""
    return sorted(item.name.removesuffix(".toml") for item in SHIPPED.iterdir() if item.name.endswith(".toml"))


def space_titles() -> dict[str, str]:
    """Return what each shipped space is, by name: its first line."""
    return {name: (SHIPPED / f"{name}.toml").read_text().partition("\n")[0].lstrip("# ") for name in space_names()}


def load_space(what: str | Path, overrides: Sequence[str] = ()) -> Space:
    """Return a space from a TOML file or a shipped name; `overrides` are settings `key=value` of the base, or of `search.KEY`.

    Raises UsageError with one line.
    """
    text = str(what)
    if not (isinstance(what, Path) or text.endswith(".toml") or "/" in text) and text not in space_names():
        near = nearest(text, space_names())
        raise UsageError(
            f"{text}: no space of that name.{near} Name a .toml file, or one of {', '.join(space_names())}."
        )
    shipped = text in space_names()
    own = tomllib.loads((SHIPPED / f"{text}.toml").read_text()) if shipped else read_toml(Path(what))
    own = {"name": Path(text).name.removesuffix(".toml"), **own}
    searched, varied = own.pop("search", {}), own.pop("vary", None)
    if not isinstance(varied, Mapping) or not varied:
        raise UsageError(
            f"{what}: vary: is missing or empty. Give recipe keys their values, e.g. [vary] optim.lr = [0.05, 0.1]"
        )
    if not isinstance(searched, Mapping):
        raise UsageError(f"{what}: search: must be a table. Write [search] above its keys.")
    searched = dict(searched)
    for setting in overrides:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set {setting}: write it as key=value, for example --set train.epochs=5.")
        if key.strip().startswith("search."):
            searched[key.strip().removeprefix("search.")] = read_value(value)
    settings = tuple(setting for setting in overrides if not setting.strip().startswith("search."))
    how = _search(text, searched)
    space = Space(str(own["name"]), own, _vary(text, varied), how, settings, text)
    _try_out(space)
    return space


def _vary(where: str, table: Mapping[str, Any], above: str = "") -> dict[str, Values]:
    """Return what varies by dotted key; a table within is a range, or more keys."""
    found: dict[str, Values] = {}
    for name, value in table.items():
        key = above + name
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            found |= _vary(where, value, f"{key}.")
        elif isinstance(value, Mapping):
            found[key] = _range(f"{where}: vary.{key}", value)
        elif isinstance(value, list):
            found[key] = _choices(f"{where}: vary.{key}", value)
        else:
            raise UsageError(f"{where}: vary.{key}: {value!r} does not vary. Give a list, or {{low = .., high = ..}}.")
    return found


def _range(where: str, value: Mapping[str, Any]) -> Range:
    try:
        made = Range(**value)
    except ValidationError as error:
        raise UsageError(f"{where}: {explain(error, Range.model_fields)}") from error
    if not all(math.isfinite(number) for number in (made.low, made.high)) or made.low > made.high:
        raise UsageError(f"{where}: is empty: low is {made.low}, high is {made.high}. Give low below high.")
    if made.step is not None and (made.step <= 0 or made.log):
        raise UsageError(f"{where}: step must be above 0, and goes without log. Leave one of them out.")
    if made.log and made.low <= 0:
        raise UsageError(f"{where}: log needs low above 0, and it is {made.low}.")
    return made


def _choices(where: str, value: list[Any]) -> tuple[Any, ...]:
    if not value:
        raise UsageError(f"{where}: is empty. Give at least one value.")
    if any(one in value[:place] for place, one in enumerate(value)):
        raise UsageError(f"{where}: names a value twice. Name each once.")
    return tuple(value)


def _search(where: str, table: Mapping[str, Any]) -> Search:
    try:
        return Search(**table)
    except ValidationError as error:
        raise UsageError(f"{where}: search.{explain(error, Search.model_fields)}") from error


def _try_out(space: Space) -> None:
    """Refuse a key or value that makes no recipe at once and not after hours: each by itself, the others at their first."""
    if STAGES in space.vary and not all(isinstance(space.vary.get(key), Range) for key in STAGED):
        raise UsageError(f"{space.where}: vary.{STAGES}: {' and '.join(STAGED)} must vary too, each as a range.")
    for key, values in space.vary.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            try:
                space.recipe(space.first() | _of(space, key, value))
            except UsageError as error:
                raise UsageError(f"{space.where}: vary.{key}: with {_shown(value)}: {error}") from error


def stage_counts(space: Space) -> list[int]:
    """Return how many stages the networks may have."""
    if STAGES not in space.vary:
        return [len(space.recipe({}).network.widths)]
    found = listed(STAGES, space.vary[STAGES])
    if not all(isinstance(number, int) and 0 < number < 10 for number in found):
        raise UsageError(f"{space.where}: vary.{STAGES}: must be whole numbers from 1 to 9.")
    return found


def _of(space: Space, key: str, value: Any) -> dict[str, Any]:
    """Return a point of one key: of each stage where it is a stage's own."""
    if key in STAGED and isinstance(space.vary[key], Range):
        return {f"{key}.{stage}": value for stage in range(max(stage_counts(space)))}
    return {key: value}


def _joined(point: Mapping[str, Any]) -> dict[str, Any]:
    """Return a point by recipe keys: the values `KEY.n` of stages put together, as many as there are stages."""
    found = {key: value for key, value in point.items() if key not in ("recipe", STAGES)}
    for key in STAGED:
        own = [name for name in found if name.startswith(f"{key}.")]
        values = [found.pop(f"{key}.{number}") for number in range(len(own))]
        if values:
            found[key] = values[: point.get(STAGES, len(values))]
    return found


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
