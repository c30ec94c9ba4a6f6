"""Where recipes come from: shipped names and TOML files, laid over a `base`, and settings `a.b=v` on top."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from resfit.errors import UsageError, nearest
from resfit.models.networks import NETWORKS, network, network_fields
from resfit.models.spec import own_fields
from resfit.recipe import Named, Optim, Recipe, Schedule, parse_recipe, to_spec

SHIPPED = files("resfit") / "recipes"


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
        table |= {
            "name": text if ":" not in text else spec.family,
            "network": text,
        }  # its fields: others follow the size
    for setting in sorted(overrides, key=setting_order):
        _override(table, setting)
    return parse_recipe(table, where)


def _table(what: str | Path, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the table of a recipe's file or shipped name, laid over that of its `base` where it names one.

    Sections add to the base's, key by key; `augment` and `mix` replace the base's. A base that is a path is read from the
    folder of the file that names it.
    """
    shipped = isinstance(what, str) and what in recipe_names()
    own = tomllib.loads((SHIPPED / f"{what}.toml").read_text()) if shipped else read_toml(Path(what))
    return lay_over({"name": Path(what).name.removesuffix(".toml"), **own}, what, below)


def lay_over(own: Mapping[str, Any], what: str | Path, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the table `own` of a recipe that `what` names, laid over that of its `base` where it has one."""
    own = dict(own)
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


def read_toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file. Raises UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}. Name a recipe file, or see `resfit list`.") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: is not valid TOML: {error}. Mend that line.") from error


def setting_order(setting: str) -> bool:
    """Sort settings `key=value` by this: what chooses a technique or network goes before the parameters of what it chose."""
    key = setting.partition("=")[0].strip()
    return "." in key and not key.endswith(".name")


def _override(table: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {setting}: write it as key=value, for example --set optim.lr=0.2.")
    apply_setting(table, key.strip(), read_value(text), f"--set {setting}")


def read_value(text: str) -> Any:
    """Read a setting's value as TOML, or a bare word, as people type it: `--set optim.name=adamw`."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def apply_setting(table: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set a dotted key of a recipe's table; `where` names the setting in errors (UsageError)."""
    *parents, last = key.split(".")
    if parents == ["network"] and not isinstance(table.get("network", {}), Mapping):
        named = table["network"]
        table["network"] = network_fields(named) if isinstance(named, str) else own_fields(to_spec(named))
    if key == "network.image_size":
        raise UsageError(f"{where}: the data decides it. Set data.image_size.")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"{where}: {parent} is a single value. See `resfit train --help`.")
    _put(".".join(parents), table, last, value)
