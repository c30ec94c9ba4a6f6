"""A bundle's config.json: all that prediction needs beside the weights. No torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from resfit.data.images import PixelRule
from resfit.errors import UsageError
from resfit.models.spec import ModelSpec, stored_spec

if TYPE_CHECKING:
    from resfit.recipe import Recipe

VIEWS = {"none": 1, "flip": 2, "flip-shift": 6}  # how many views a prediction takes


@dataclass(frozen=True)
class BundleConfig:
    """What config.json in `folder` says: the network, its classes, preprocessing and test-time views; `values` is all of it."""

    folder: Path
    spec: ModelSpec
    class_names: tuple[str, ...]
    rule: PixelRule
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tta: str
    tta_below: float
    values: dict[str, Any]


def pixel_rule(recipe: "Recipe") -> PixelRule:
    """Return the rule by which images reach the recipe's network."""
    return PixelRule(recipe.network.image_size, recipe.data.resize)


def rule_from(values: Mapping[str, Any]) -> PixelRule:
    """Return the rule that a bundle, an exported file or run.json says; before there was a choice it was to squash."""
    return PixelRule(values["size"], values.get("resize", "squash"), values["filter"])


def bundle_folder(path: str | Path) -> Path:
    """Return where the bundle of a run folder lies, or `path` itself where it is one."""
    folder = Path(path)
    return folder if (folder / "config.json").exists() else folder / "bundle"


def read_config(path: str | Path) -> BundleConfig:
    """Return the config of the bundle in a run folder or bundle folder; raises UsageError where there is none that is whole."""
    folder = bundle_folder(path)
    if not (folder / "config.json").exists():
        unfinished = (Path(path) / "run.json").exists()
        todo = (
            f"Finish it with `resfit resume {quote(str(path))}`."
            if unfinished
            else "Name a finished run or its bundle folder."
        )
        raise UsageError(f"{path}: holds no bundle. {todo}")
    try:
        values = json.loads((folder / "config.json").read_text())
        pre = values["preprocessing"]
        rule = rule_from(pre)
        tta, tta_below = values.get("tta", "none"), float(values.get("tta_below", 1.0))
        if tta not in VIEWS:
            raise ValueError(f"tta {tta!r} is none of {', '.join(VIEWS)}")
        names, mean, std = tuple(values["class_names"]), tuple(pre["mean"]), tuple(pre["std"])
        return BundleConfig(folder, stored_spec(values["spec"]), names, rule, mean, std, tta, tta_below, values)
    except UsageError:
        raise
    except Exception as error:
        raise unreadable(folder, error) from error


def unreadable(folder: Path, error: Exception) -> UsageError:
    """Return the error of a damaged bundle: whatever it made its readers say, the user needs its place."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UsageError(f"{folder}: the bundle cannot be read: {reason}. Was it changed or copied in part?")
