"""The weights that training starts from: those of a bundle (`recipe.init`), but for the head where the classes are others."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from resfit.errors import UsageError
from resfit.evaluation.bundle import read_weights, weights_digest
from resfit.evaluation.config import BundleConfig, read_config
from resfit.models.spec import ModelSpec, format_spec
from resfit.recipe import Recipe

HEAD = "head."  # what every family's last layer is called


def fix_init(recipe: Recipe) -> Recipe:
    """Return the recipe with the bundle's place made absolute and its mean and deviation, where the recipe has none of its own.

    Raises UsageError where there is no such bundle, or one of another network.
    """
    if recipe.init is None:
        return recipe
    config = _read(recipe)
    theirs = _as_here(config.spec, recipe.network)
    if theirs != recipe.network:
        raise UsageError(
            f"init: {recipe.init}: holds the network {format_spec(theirs)}, and the recipe another. Leave the recipe out, or "
            "give it that network: --set network=..."
        )
    data = recipe.data.model_copy(
        update={"mean": recipe.data.mean or config.mean, "std": recipe.data.std or config.std}
    )
    return recipe.model_copy(update={"init": str(Path(recipe.init).absolute()), "data": data})


def init_digest(recipe: Recipe) -> str | None:
    """Return a hash of the weights that the recipe starts from; None where it starts from its seed."""
    return None if recipe.init is None else weights_digest(recipe.init)


def load_init(model: nn.Module, recipe: Recipe, class_names: tuple[str, ...]) -> None:
    """Put the bundle's weights into the model; the head comes along only where it is of the same classes, in their order."""
    config = _read(recipe)
    weights, own = read_weights(config), model.state_dict()
    if config.class_names != class_names:
        weights |= {name: value for name, value in own.items() if name.startswith(HEAD)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UsageError(
            f"init: {recipe.init}: its weights do not fit the network: {' '.join(str(error).split())}"
        ) from error


def _read(recipe: Recipe) -> BundleConfig:
    """Return the config of the bundle that a recipe starts from. Raises UsageError."""
    assert recipe.init is not None
    try:
        return read_config(recipe.init)
    except UsageError as error:
        raise UsageError(f"init: {error}") from error


def _as_here(theirs: ModelSpec, ours: ModelSpec) -> ModelSpec:
    """Return their network with what no weight but the head's depends on as it is in ours."""
    return replace(
        theirs,
        classes=ours.classes,
        image_size=ours.image_size,
        stem_stride=ours.stem_stride,
        pool=ours.pool,
        dropout=ours.dropout,
        stochastic_depth=ours.stochastic_depth,
    )
