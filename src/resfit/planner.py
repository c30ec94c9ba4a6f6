"""From images and a time to a recipe: image size, network and batch that the time has room for, by what is measured here.

The networks are speed-cpu's in other widths and, for larger images, with more stages, since a short time is best spent on
them; where none keeps the budget, those of `design` are. Rules of ours (docs/log.md, 2026-11-22): a network of DENSITY macs a
pixel passes over all images EPOCHS times, one of k times that sqrt(k) times as often, none fewer than FEWEST times; no
training has fewer than STEPS steps; images are as large as the data has them, up to the last of SIDES, while a network of at
least THIN macs a pixel fits.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from resfit.budget import Budget, check_budget
from resfit.data.feed import memory_limit
from resfit.data.inspection import image_sizes
from resfit.data.listing import Source
from resfit.data.sources import open_source
from resfit.data.splits import TEST_SHARE
from resfit.errors import UsageError
from resfit.evaluation.config import VIEWS
from resfit.machine import choose_device, default_threads, tune
from resfit.models.families import cost
from resfit.models.spec import ModelSpec, format_spec, resized
from resfit.recipe import Freezing, Recipe, Resizing
from resfit.recipefile import load_recipe
from resfit.runs import Run
from resfit.solver.exact import design
from resfit.solver.expected import load_expected
from resfit.solver.ranges import default_ranges
from resfit.training.launch import absolute, check_place, load_data, start
from resfit.training.pace import measure, phases, train_seconds
from resfit.training.runlog import say
from resfit.training.timelimit import MOST, TimeLimit, as_limit

PRESETS = {"quick": 5 * 60.0, "balanced": 30 * 60.0, "best": 3 * 3600.0}  # seconds
SIDES = range(32, 129, 32)  # pixels
WIDTHS = range(4, 513, 4)  # of the first stage; the others have four times as many channels
DENSITY, EPOCHS, FEWEST = 20_000, 5, 8
THIN, DENSE = 5_000, 400_000  # macs a pixel
STEPS = 700
BATCHES = 16, 512, 2048  # the smallest; the largest that is not measured to be faster; the largest
GAIN = 1.2  # times as many images a second make a batch of twice the size worth it
BYTES = 20  # that training holds for each activation: value, gradient, and what layers keep, in float32
LOOKING = 0.3  # of the time of a step, what predicting an image of val takes for each of its views
TRIES = 3  # networks measured before the smallest is taken


def fit(
    data: str | Path,
    out: str | Path | None = None,
    *,
    preset: str = "balanced",
    time_limit: float | TimeLimit | None = None,
    seed: int = 0,
    refit: bool = False,
    device: str = "auto",
    settings: Sequence[str] = (),
) -> Run:
    """Plan and train a network for a data source within a time, and return its run.

    preset: quick (5 minutes), balanced (30) or best (3 hours); time_limit, in seconds, replaces that time. `settings` are
    those of `train` and stand: budget.max_params=500k bounds the network, network=..., data.image_size=64 or
    train.batch_size=32 are not planned. Raises UsageError, DataError, GateError, ResourceError.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset: {preset!r} is not known. Use {', '.join(PRESETS)}.")
    limit = as_limit(PRESETS[preset] if time_limit is None else time_limit, settings)
    assert limit is not None
    given = {setting.partition("=")[0].strip() for setting in settings}
    given |= {"network" for key in given if key.startswith("network.")}
    check_place(data, out, device)
    recipe = _plain(data, settings, given)
    opened, place = open_source(data), choose_device(device)
    tune(default_threads())
    machine = 1.0 if given >= {"network", "data.image_size"} else slowness(recipe, place, limit)
    if "data.image_size" not in given:
        side = choose_side(recipe, opened, machine, limit)
        recipe = _plain(data, [f"data.image_size={side}", *settings], given)
    train_set, val_set = load_data(recipe, opened, refit, aloud=True)
    images = (len(train_set), 0 if val_set is None else len(val_set))
    if "train.batch_size" not in given:
        recipe = _with_batch(recipe, first_batch(images[0]), "optim.lr" in given)
    if "network" not in given:
        classes = len(train_set.class_names)
        recipe = choose_network(recipe, classes, images, place, machine, limit)
    if "train.batch_size" not in given:
        recipe = choose_batch(recipe, place, limit, "optim.lr" in given)
    size = recipe.network.image_size
    say(f"planned: {format_spec(recipe.network)} for {size}x{size} pixels, batches of {recipe.train.batch_size}")
    return start(recipe, train_set, val_set, out, seed=seed, device=device, source=absolute(data), time_limit=limit)


def slowness(recipe: Recipe, place: torch.device, limit: TimeLimit) -> float:
    """Return how many times as long as by the rule's model a training step of the recipe takes here."""
    small = _with_batch(recipe, min(64, recipe.train.batch_size), True)
    return measured_seconds(small, place, limit) / modelled_seconds(recipe)


def measured_seconds(recipe: Recipe, place: torch.device, limit: TimeLimit) -> float:
    """Return the seconds of an image over all of training: measured on whole images, smaller ones by their pixels."""
    data = recipe.data.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)})  # what the data fills in
    train = recipe.train.model_copy(update={"class_weights": "none"})
    whole = recipe.model_copy(update={"data": data, "train": train, "resizing": Resizing(), "freezing": Freezing()})
    size = recipe.network.image_size
    seconds = measure(whole, place, limit.seconds)[size]
    return mean_seconds(recipe, {side: seconds * (side / size) ** 2 for side, _, _ in phases(recipe)})


def mean_seconds(recipe: Recipe, image_seconds: Mapping[int, float]) -> float:
    """Return the seconds of an image over all of training, by those at each size."""
    return train_seconds(recipe, image_seconds, 1, 1)


def modelled_seconds(recipe: Recipe) -> float:
    """Return the same by the model of `design`, which was fitted on another machine and other families."""
    specs = {side: resized(recipe.network, side) for side, _, _ in phases(recipe)}
    times = load_expected().training
    return mean_seconds(recipe, {side: times.seconds(spec, cost(spec)) for side, spec in specs.items()})


def choose_side(recipe: Recipe, opened: Source, machine: float, limit: TimeLimit) -> int:
    """Return the largest of SIDES, up to the median image's shorter side, at which a network of THIN macs a pixel fits."""
    split = "all" if "all" in opened.splits else "train"
    if split not in opened.splits:
        return SIDES[0]  # reading it will say what is missing
    listing = opened.list_split(split)
    sizes = image_sizes(listing)
    natural = statistics.median(min(size) for size in sizes.elements()) if sizes else SIDES[0]
    held = (split == "all") * TEST_SHARE + ("val" not in opened.splits) * recipe.data.val_fraction
    count = max(1, round(listing.count * (1 - held)))
    images = (count, round(listing.count * recipe.data.val_fraction))
    sides = [side for side in SIDES if side <= natural] or [SIDES[0]]
    for side in reversed(sides[1:]):
        for spec in candidates(recipe.budget, side, len(listing.class_names)):
            tried = _with_batch(_with_network(recipe, spec), first_batch(count), False)
            if cost(spec).macs < THIN * side**2:
                break
            if fits(tried, images, machine * modelled_seconds(tried), limit.left):
                return side
    return sides[0]


def choose_network(
    recipe: Recipe, classes: int, images: tuple[int, int], place: torch.device, machine: float, limit: TimeLimit
) -> Recipe:
    """Return the recipe with the costliest candidate that, measured, can be trained as often as it should be.

    Where none can it is the quickest one.
    """
    specs = candidates(recipe.budget, recipe.network.image_size, classes)
    tries = TRIES
    for spec in specs:
        tried = _with_network(recipe, spec)
        modelled = modelled_seconds(tried)
        if tries and fits(tried, images, machine * modelled, limit.left):
            seconds = measured_seconds(tried, place, limit)
            if fits(tried, images, seconds, limit.left):
                return tried
            machine, tries = seconds / modelled, tries - 1
    return min((_with_network(recipe, spec) for spec in specs), key=modelled_seconds)


def candidates(budget: Budget, side: int, classes: int) -> list[ModelSpec]:
    """Return the networks of a budget for images of a side, the costliest first. Raises GateError for none."""
    stages = 3 + max(0, int(math.log2(side / SIDES[0])))
    widths = [(w, *(4 * w,) * (stages - 1)) for w in reversed(WIDTHS)]
    specs = [ModelSpec("whitened", some, (1,) * stages, image_size=side, classes=classes) for some in widths]
    kept = [spec for spec in specs if cost(spec).macs <= DENSE * side**2 and check_budget(cost(spec), budget).ok]
    if kept:
        return kept
    most = min(DENSE * side**2, budget.max_macs or DENSE * side**2)
    ranges = default_ranges(more={"image_size": side, "classes": classes})
    return [one.spec for one in design(replace(budget, max_macs=most), ranges, top=40)]


def fits(recipe: Recipe, images: tuple[int, int], image_seconds: float, seconds: float) -> bool:
    """Return whether a network can be trained as often as it should be on (train, val) images, and looked at each time."""
    size = recipe.network.image_size
    epochs = wanted_epochs(cost(recipe.network).macs, size, images[0], recipe.train.batch_size)
    looking = LOOKING * VIEWS[recipe.tta] * images[1]
    return epochs * (images[0] + looking) * image_seconds <= seconds


def wanted_epochs(macs: int, side: int, count: int, batch: int) -> float:
    """Return how often a network should pass over `count` images, by the rules at the head of this file."""
    passes = EPOCHS * math.sqrt(macs / (DENSITY * side**2))
    return min(MOST, max(passes, FEWEST, STEPS * batch / count))


def first_batch(count: int) -> int:
    """Return the largest batch, of a power of two, with which FEWEST passes over `count` images make STEPS steps."""
    least, most, _ = BATCHES
    return max(least, min(most, 1 << int(math.log2(max(FEWEST * count / STEPS, 1)))))


def choose_batch(recipe: Recipe, place: torch.device, limit: TimeLimit, keep_rate: bool) -> Recipe:
    """Return the recipe, its batch halved while it needs too much memory, or doubled while that is measured to pay."""
    activations, room = cost(recipe.network).activations, memory_limit(place)
    while recipe.train.batch_size > BATCHES[0] and BYTES * activations * recipe.train.batch_size > room:
        recipe = _with_batch(recipe, recipe.train.batch_size // 2, keep_rate)
    seconds = measured_seconds(recipe, place, limit)
    while recipe.train.batch_size < BATCHES[2]:
        double = _with_batch(recipe, 2 * recipe.train.batch_size, keep_rate)
        steps = limit.left / (seconds * double.train.batch_size)
        if steps < STEPS or BYTES * activations * double.train.batch_size > room:
            break
        taken = measured_seconds(double, place, limit)
        if seconds < GAIN * taken:
            break
        recipe, seconds = double, taken
    return recipe


def _plain(data: str | Path, settings: Sequence[str], given: set[str]) -> Recipe:
    """Return the recipe before anything is measured: of the size that the settings say, with a network of the budget."""
    named = [f"name={_name(data)}", *settings]
    side = load_recipe("planned", ["resizing={}", *named]).network.image_size
    shrunk = f"resizing.sizes=[{side // 2}, {3 * side // 4}]" if side >= SIDES[0] else "resizing={}"
    recipe = load_recipe("planned", [shrunk, f"augment.crop.padding={max(1, side // 16)}", *named])
    if "network" in given:
        return recipe
    specs = candidates(recipe.budget, side, 2)
    return _with_network(recipe, specs[len(specs) // 2])


def _with_network(recipe: Recipe, spec: ModelSpec) -> Recipe:
    """Return the recipe with a network, and what it shrinks images to in proportion."""
    larger = spec.image_size / recipe.network.image_size
    sizes = tuple(round(size * larger) for size in recipe.resizing.sizes)
    return recipe.model_copy(update={"network": spec, "resizing": recipe.resizing.model_copy(update={"sizes": sizes})})


def _with_batch(recipe: Recipe, batch: int, keep_rate: bool) -> Recipe:
    rate = recipe.optim.lr if keep_rate else recipe.optim.lr * batch / recipe.train.batch_size
    train = recipe.train.model_copy(update={"batch_size": batch})
    return recipe.model_copy(update={"train": train, "optim": recipe.optim.model_copy(update={"lr": rate})})


def _name(data: str | Path) -> str:
    """Return a run's name after its data: the last part of the path, of the letters that a name may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(data).name.partition(".")[0]).strip("-._")
    return name or "planned"
