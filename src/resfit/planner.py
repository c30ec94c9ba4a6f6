"""From images and a time to a recipe: image size, network and batch that the time has room for, by what is measured here.

Three rules of ours say what time is spent on (docs/log.md, 2026-11-22): a network of DENSITY macs a pixel passes over all
images EPOCHS times, one of k times that sqrt(k) times as often; no training has fewer than UPDATES steps; and images are as
large as the data has them, while a network of at least THIN macs a pixel fits. The learning rate follows the batch (Goyal et
al. 2017, arXiv 1706.02677).
"""

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from resfit.budget import Budget
from resfit.data.feed import memory_limit
from resfit.data.inspection import image_sizes
from resfit.data.listing import Source
from resfit.data.sources import open_source
from resfit.data.splits import TEST_SHARE
from resfit.errors import UsageError
from resfit.machine import choose_device, default_threads, tune
from resfit.models.families import cost
from resfit.models.spec import format_spec
from resfit.recipe import Recipe
from resfit.recipefile import load_recipe
from resfit.runs import Run
from resfit.solver.exact import Designed, design
from resfit.solver.expected import load_expected
from resfit.solver.ranges import default_ranges
from resfit.training.launch import absolute, as_limit, check_place, load_data, start
from resfit.training.runlog import say
from resfit.training.timelimit import MOST, PREDICTED, TimeLimit, measure

PRESETS = {"quick": 5 * 60.0, "balanced": 30 * 60.0, "best": 3 * 3600.0}  # seconds
SIDES = range(32, 225, 32)  # pixels
DENSITY, EPOCHS = 20_000, 16
THIN, DENSE = 5_000, 400_000  # macs a pixel
UPDATES = 1_000
BATCHES = 16, 256, 1024  # the smallest; the largest that is not measured to be faster; the largest
GAIN = 1.2  # times as many images a second make a batch of twice the size worth it
BYTES = 20  # that training holds for each activation: value, gradient, and what layers keep, in float32
TRIES = 4  # networks measured before the smallest is taken


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
    limit = as_limit(PRESETS[preset] if time_limit is None else time_limit)
    assert limit is not None
    given = {setting.partition("=")[0].strip() for setting in settings}
    if "train.epochs" in given:
        raise UsageError(
            "train.epochs: follows from the time here. Name a recipe to set it: resfit train default --data PATH"
        )
    check_place(data, out, device)
    recipe = load_recipe("planned", [f"name={_name(data)}", *settings])
    opened, place = open_source(data), choose_device(device)
    if "network" not in given:
        recipe = _with_smallest(recipe)  # what no network keeps is said before anything is measured
    tune(default_threads())
    machine = 1.0 if given >= {"network", "data.image_size"} else slowness(place, limit)
    if "data.image_size" not in given:
        side = choose_side(recipe, opened, machine, limit)
        more = [f"data.image_size={side}", f"augment.crop.padding={side // 8}"]
        sized = load_recipe("planned", [f"name={_name(data)}", *more, *settings])
        recipe = sized if "network" in given else _with_smallest(sized)
    train_set, val_set = load_data(recipe, opened, refit, aloud=True)
    images = (len(train_set), 0 if val_set is None else len(val_set))
    if "train.batch_size" not in given:
        recipe = _with_batch(recipe, first_batch(images[0]), "optim.lr" in given)
    if "network" not in given:
        classes = len(train_set.class_names)
        recipe = choose_network(recipe, classes, images, place, machine, limit)
    if "train.batch_size" not in given:
        recipe = choose_batch(recipe, images, place, limit, "optim.lr" in given)
    size = recipe.network.image_size
    say(f"planned: {format_spec(recipe.network)} for {size}x{size} pixels, batches of {recipe.train.batch_size}")
    return start(recipe, train_set, val_set, out, seed=seed, device=device, source=absolute(data), time_limit=limit)


def slowness(place: torch.device, limit: TimeLimit) -> float:
    """Return how many times as long as by the rule's model a training step of a small network takes here."""
    recipe = _measurable(load_recipe("planned"))
    seconds = measure(recipe, place, limit.seconds)[recipe.network.image_size]
    return seconds / load_expected().training.seconds(recipe.network, cost(recipe.network))


def choose_side(recipe: Recipe, opened: Source, machine: float, limit: TimeLimit) -> int:
    """Return the largest of SIDES, up to the median image's shorter side, at which a network of THIN macs a pixel fits."""
    split = "all" if "all" in opened.splits else "train"
    listing = opened.list_split(split)
    sizes = image_sizes(listing)
    natural = statistics.median(min(size) for size in sizes.elements()) if sizes else SIDES[0]
    held = (split == "all") * TEST_SHARE + ("val" not in opened.splits) * recipe.data.val_fraction
    count = max(1, round(listing.count * (1 - held)))
    images = (count, round(listing.count * recipe.data.val_fraction))
    sides = [side for side in SIDES if side <= natural] or [SIDES[0]]
    for side in reversed(sides[1:]):
        for one in front(recipe.budget, side, len(listing.class_names)):
            seconds = machine * load_expected().training.seconds(one.spec, one.cost)
            if one.cost.macs < THIN * side**2:
                break
            if fits(one.cost.macs, side, images, first_batch(count), seconds, limit.left):
                return side
    return sides[0]


def choose_network(
    recipe: Recipe, classes: int, images: tuple[int, int], place: torch.device, machine: float, limit: TimeLimit
) -> Recipe:
    """Return the recipe with the costliest network of the front that, measured, can be trained as often as it should be.

    Where none can it is the quickest one.
    """
    side, tries = recipe.network.image_size, TRIES
    rows = front(recipe.budget, side, classes)
    times = [load_expected().training.seconds(one.spec, one.cost) for one in rows]
    for one, modelled in zip(rows, times, strict=True):
        tried = recipe.model_copy(update={"network": one.spec})
        batch = recipe.train.batch_size
        if tries and fits(one.cost.macs, side, images, batch, machine * modelled, limit.left):
            seconds = measure(_measurable(tried), place, limit.seconds)[side]
            if fits(one.cost.macs, side, images, batch, seconds, limit.left):
                return tried
            machine, tries = seconds / modelled, tries - 1
    return recipe.model_copy(update={"network": rows[times.index(min(times))].spec})


def front(budget: Budget, side: int, classes: int) -> list[Designed]:
    """Return the networks of a budget from the costliest one down, each the best of its macs. Raises GateError for none."""
    most = min(DENSE * side**2, budget.max_macs or DENSE * side**2)
    ranges = default_ranges(more={"image_size": side, "classes": classes})
    return design(replace(budget, max_macs=most), ranges, top=40)


def fits(macs: int, side: int, images: tuple[int, int], batch: int, image_seconds: float, seconds: float) -> bool:
    """Return whether a network can be trained as often as it should be, and looked at on val each time."""
    epochs = wanted_epochs(macs, side, images[0], batch)
    return epochs * (images[0] + PREDICTED * images[1]) * image_seconds <= seconds


def wanted_epochs(macs: int, side: int, count: int, batch: int) -> float:
    """Return how often a network should pass over `count` images, by the rules at the head of this file."""
    passes = EPOCHS * max(0.5, math.sqrt(macs / (DENSITY * side**2)))
    return min(MOST, max(passes, UPDATES * batch / count))


def first_batch(count: int) -> int:
    """Return the largest batch, of a power of two, with which EPOCHS passes over `count` images make UPDATES steps."""
    least, most, _ = BATCHES
    most_for = EPOCHS * count / UPDATES
    return max(least, min(most, 1 << int(math.log2(max(most_for, 1)))))


def choose_batch(
    recipe: Recipe, images: tuple[int, int], place: torch.device, limit: TimeLimit, keep_rate: bool
) -> Recipe:
    """Return the recipe, its batch halved while it needs too much memory, or doubled while that is measured to pay."""
    activations, room = cost(recipe.network).activations, memory_limit(place)
    while recipe.train.batch_size > BATCHES[0] and BYTES * activations * recipe.train.batch_size > room:
        recipe = _with_batch(recipe, recipe.train.batch_size // 2, keep_rate)
    side = recipe.network.image_size
    seconds = measure(_measurable(recipe), place, limit.seconds)[side]
    while recipe.train.batch_size < BATCHES[2]:
        double = _with_batch(recipe, 2 * recipe.train.batch_size, keep_rate)
        steps = limit.left / (seconds * double.train.batch_size)
        if steps < UPDATES or BYTES * activations * double.train.batch_size > room:
            break
        taken = measure(_measurable(double), place, limit.seconds)[side]
        if seconds < GAIN * taken:
            break
        recipe, seconds = double, taken
    return recipe


def _with_smallest(recipe: Recipe) -> Recipe:
    """Return the recipe with the smallest network of its budget, which is one to start from. Raises GateError for none."""
    return recipe.model_copy(update={"network": front(recipe.budget, recipe.network.image_size, 2)[-1].spec})


def _with_batch(recipe: Recipe, batch: int, keep_rate: bool) -> Recipe:
    rate = recipe.optim.lr if keep_rate else recipe.optim.lr * batch / recipe.train.batch_size
    train = recipe.train.model_copy(update={"batch_size": batch})
    return recipe.model_copy(update={"train": train, "optim": recipe.optim.model_copy(update={"lr": rate})})


def _measurable(recipe: Recipe) -> Recipe:
    """Return the recipe with what the data would fill in and no time depends on."""
    data = recipe.data.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)})
    train = recipe.train.model_copy(update={"class_weights": "none"})
    return recipe.model_copy(update={"data": data, "train": train})


def _name(data: str | Path) -> str:
    """Return a run's name after its data: the last part of the path, of the letters that a name may have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(data).name.partition(".")[0]).strip("-._")
    return name or "planned"
