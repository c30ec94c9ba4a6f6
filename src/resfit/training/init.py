"""The state before the first step: weights of the seed, or of a bundle (`recipe.init`), its head aside for other classes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from resfit.data.batches import make_normalize
from resfit.data.images import ImageSet
from resfit.errors import UsageError
from resfit.evaluation.bundle import read_weights, weights_digest
from resfit.evaluation.config import BundleConfig, read_config
from resfit.models.families import build
from resfit.models.spec import ModelSpec, format_spec
from resfit.plugins import function
from resfit.recipe import Recipe
from resfit.training.ema import start_average
from resfit.training.precision import make_scaler
from resfit.training.state import TrainState, new_sums

HEAD = "head."  # what every family's last layer is called
FITTED = 5_000 * 32 * 32  # pixels that a whitening convolution is computed from, as many as in Jordan 2024


def make_state(recipe: Recipe, seed: int, device: torch.device, train_set: ImageSet | None = None) -> TrainState:
    """Return the state before the first step: weights drawn from the seed, channels last, optimizer and average empty.

    A network that takes something from images (`fit`, a whitening convolution) takes it from `train_set`; so does one that
    starts from a bundle, of whose classes it may have to forget. Without, both are left out: a checkpoint brings all weights.
    """
    model = build(recipe.network, seed)
    if train_set is not None:
        fit_to(model, recipe, train_set)
        if recipe.init is not None:
            load_init(model, recipe, train_set.class_names)
    model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optim = recipe.optim
    make = function("optimizers", optim.name)
    optimizer = make(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, **optim.params)
    average = start_average(model) if recipe.train.ema_decay > 0 else None
    scaler = make_scaler(recipe.train.precision, device)
    return TrainState(model, optimizer, average, scaler=scaler, sums=new_sums(device))


def fit_to(model: nn.Module, recipe: Recipe, train_set: ImageSet) -> None:
    """Let a network that wants it see normalised images: evenly spaced ones, since a folder lists them class by class."""
    fit: Callable[[Tensor], None] | None = getattr(model, "fit", None)
    if fit is not None:
        count = min(len(train_set), max(1, FITTED // recipe.network.image_size**2))
        rows = np.linspace(0, len(train_set) - 1, count).astype(np.int64)
        normalize = make_normalize(recipe.data.mean or (), recipe.data.std or (), torch.device("cpu"))
        fit(normalize(torch.from_numpy(train_set.take(rows).images[:])))


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


def refuse_other_init(recipe: Recipe, digest: str | None) -> None:
    """Raise UsageError where the bundle that the recipe starts from has gone, or has other weights than those of this hash."""
    if recipe.init is not None:
        _read(recipe)
        if weights_digest(recipe.init) != digest:
            raise UsageError(f"init: {recipe.init}: holds other weights than when the run was made. Train anew.")


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
