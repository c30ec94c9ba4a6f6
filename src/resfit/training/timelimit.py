"""Training that keeps a time limit: the seconds of a step are measured, the epochs follow, and every epoch's end looks again.

The number of epochs is decided by a clock, and so is part of the state: a checkpoint has it, a resumed run goes on with it.
"""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from resfit.budget import duration_text
from resfit.errors import GateError, UsageError
from resfit.evaluation.config import VIEWS
from resfit.machine import synchronize
from resfit.recipe import Distill, Recipe
from resfit.runs import Run
from resfit.training.init import make_state
from resfit.training.precision import fix_precision
from resfit.training.ranks import present, shared
from resfit.training.runlog import Progress
from resfit.training.step import make_step

MOST = 300  # epochs, or the recipe's own number where that is more: a small data set does not fill any limit
MEASURED = 0.01, 0.3, 3.0  # what measuring a size may take: a share of the limit, seconds at least, seconds at most
PREDICTED = 0.3  # of the time of a step, what predicting an image of val takes, until an epoch has told
SPARE = 0.02  # of the limit, kept for what is not foreseen; as much over it is not worth another plan
UNUSED = 0.05  # of the epochs: fewer are not added


class Replanned(Exception):
    """Another number of epochs than planned keeps the limit."""

    def __init__(self, epochs: int, planned: int) -> None:
        super().__init__(f"{epochs} epochs, not {planned}, keep the time limit")
        self.epochs = epochs


@dataclass(frozen=True)
class TimeLimit:
    """Seconds that training may take, from reading the images to the bundle, and when (time.monotonic) they began."""

    seconds: float
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise UsageError(f"time_limit: {self.seconds} is no time. Give seconds above 0.")

    @property
    def spent(self) -> float:
        """Return the seconds that have passed."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Return the seconds to plan for."""
        return (1 - SPARE) * self.seconds - self.spent


def as_limit(time_limit: float | TimeLimit | None, settings: Sequence[str]) -> TimeLimit | None:
    """Return a limit that begins now, if it has not begun.

    Raises UsageError where the settings have epochs too, and among torchrun's ranks: none can measure alone.
    """
    if time_limit is None:
        return None
    if any(setting.partition("=")[0].strip() == "train.epochs" for setting in settings):
        raise UsageError("train.epochs: follows from the time. Leave it out, or train a recipe without a time limit.")
    if present().many:
        raise UsageError("time limit: is for one process. Set train.epochs for torchrun's.")
    return time_limit if isinstance(time_limit, TimeLimit) else TimeLimit(time_limit)


def with_epochs(recipe: Recipe, epochs: int | None) -> Recipe:
    """Return the recipe with another number of epochs, of which a warm-up takes a fifth at most; None: as it is."""
    if epochs is None:
        return recipe
    warmup = min(recipe.schedule.warmup_epochs, epochs / 5)
    schedule = recipe.schedule.model_copy(update={"warmup_epochs": warmup})
    train = recipe.train.model_copy(update={"epochs": epochs})
    return recipe.model_copy(update={"schedule": schedule, "train": train})


def measure(recipe: Recipe, device: torch.device, limit: float) -> dict[int, float]:
    """Return the seconds an image of the recipe's training step takes at each size that training has, whole images last.

    Of a resolved recipe, on random images; a distillation's teacher and a compiler's gain are left to the first epoch.
    """
    alone = fix_precision(recipe.model_copy(update={"distill": Distill()}), device)
    share, least, most = MEASURED
    seconds, size = min(max(share * limit, least), most), recipe.network.image_size
    images = torch.randint(0, 256, (recipe.train.batch_size, 3, size, size), dtype=torch.uint8, device=device)
    index = torch.arange(len(images), device=device)
    state, step = make_state(alone, 0, device), make_step(alone, 1000, device)
    state.model.train()
    found = {}
    for side, begin, end in phases(recipe):
        steps, started, first = 0, time.perf_counter(), 0.0
        while steps < 2 or time.perf_counter() - started < seconds:
            state.step = int((begin + end) / 2 * 1000 * recipe.train.epochs)
            step(state, images, index % recipe.network.classes, index, 0)
            synchronize(device)
            steps += 1
            if steps == 1:  # it allocates, and lets oneDNN choose its kernels
                first = time.perf_counter() - started
        found[side] = (time.perf_counter() - started - first) / (steps - 1) / len(images)
    return found


def phases(recipe: Recipe) -> list[tuple[int, float, float]]:
    """Return (image size, begin, end) of training's progress, in order."""
    ends = (*recipe.resizing.until, 1.0)
    return list(zip((*recipe.resizing.sizes, recipe.network.image_size), (0.0, *ends[:-1]), ends, strict=True))


def train_seconds(recipe: Recipe, image_seconds: Mapping[int, float], images: int, epochs: int, done: int = 0) -> float:
    """Return what the training of all `epochs` but the first `done` takes, by the seconds of an image at each size."""
    begun = done / epochs
    shares = ((side, max(0.0, end - max(begin, begun))) for side, begin, end in phases(recipe))
    return epochs * images * sum(image_seconds[side] * share for side, share in shares)


def look_seconds(recipe: Recipe, image_seconds: Mapping[int, float], val: int) -> float:
    """Return about what predicting so many images of val takes, all views of each, before an epoch has told."""
    return PREDICTED * VIEWS[recipe.tta] * image_seconds[recipe.network.image_size] * val


def plan_epochs(
    recipe: Recipe, image_seconds: Mapping[int, float], images: tuple[int, int], seconds: float, most: int
) -> int:
    """Return the most epochs, up to `most`, that `seconds` have room for with (train, val) `images`; 0 for none.

    val is predicted after each epoch that looks at it, and once more at the end.
    """
    train, val = images
    look = look_seconds(recipe, image_seconds, val)

    def total(epochs: int) -> float:
        looks = -(-epochs // recipe.train.validate_every) + 1
        return train_seconds(recipe, image_seconds, train, epochs) + looks * look

    return _largest(total, seconds, 1, most)


def fit_epochs(
    recipe: Recipe, device: torch.device, images: tuple[int, int], limit: TimeLimit
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with the epochs that fill what is left of a limit, and what run.json keeps of it, for `Deadline`.

    Raises GateError where there is no time for one epoch.
    """
    image_seconds, most = measure(recipe, device, limit.seconds), max(MOST, recipe.train.epochs)
    left = limit.left
    epochs = plan_epochs(recipe, image_seconds, images, left, most)
    if not epochs:
        look = look_seconds(recipe, image_seconds, images[1])
        need = train_seconds(recipe, image_seconds, images[0], 1) + 2 * look
        raise GateError(
            f"time limit: {duration_text(limit.seconds)}: one epoch of {images[0]:,} images, and val, take about"
            f" {duration_text(need)} here, and {duration_text(max(left, 0.0))} are left. Give it more time, or take a smaller"
            " network."
        )
    sides = {str(side): value for side, value in image_seconds.items()}
    kept = {"seconds": limit.seconds, "before": limit.spent, "most": most, "image_seconds": sides}
    return with_epochs(recipe, epochs), kept


class Deadline(Progress):
    """Shows training, and at each epoch's end raises Replanned where another number of epochs keeps the limit better."""

    def __init__(self, run: Run, recipe: Recipe, images: tuple[int, int]) -> None:
        super().__init__(recipe.train.epochs, images[0])
        self.recipe, self.counts, self.kept = recipe, images, run.info["time_limit"]
        self.rows = run.metrics if run.metrics_file.exists() else []
        self.spent = self.kept["before"] + sum(_seconds(row) for row in self.rows)
        self.began = time.monotonic()

    def epoch(self, row: dict[str, Any]) -> None:
        """Print the line of a finished epoch, and look at the clock."""
        super().epoch(row)
        self.rows = [*(old for old in self.rows if old["epoch"] < row["epoch"]), row]  # fewer after a rollback
        spent = self.spent + time.monotonic() - self.began
        epochs = shared(lambda: replan(self.recipe, self.kept, self.counts, self.rows, spent, self.epochs))
        if epochs != self.epochs:
            raise Replanned(epochs, self.epochs)


def replan(
    recipe: Recipe,
    kept: Mapping[str, Any],
    images: tuple[int, int],
    rows: Sequence[Mapping[str, Any]],
    spent: float,
    planned: int,
) -> int:
    """Return how many epochs there should be, after those of the `rows` (of metrics.jsonl) and `spent` seconds.

    The measured seconds of an image are corrected by what the epochs so far took. A plan stands that keeps its limit; in the
    first half, before the rate has fallen far, one that leaves room for a twentieth more is made longer.
    """
    done, limit = len(rows), float(kept["seconds"])
    image_seconds = {int(side): float(value) for side, value in kept["image_seconds"].items()}
    whole = train_seconds(recipe, image_seconds, images[0], planned)
    modelled = whole - train_seconds(recipe, image_seconds, images[0], planned, done)
    slower = sum(float(row["train_seconds"]) for row in rows) / modelled
    looks = [float(row["val_seconds"]) for row in rows if "val_seconds" in row]
    look = sum(looks) / len(looks) if looks else slower * look_seconds(recipe, image_seconds, images[1])
    besides = max(0.0, spent - float(kept["before"]) - sum(map(_seconds, rows))) / done  # an epoch: checkpoints
    every = recipe.train.validate_every

    def total(epochs: int) -> float:
        left = train_seconds(recipe, image_seconds, images[0], epochs, done) * slower
        return spent + left + look * (-(-epochs // every) - done // every + 1) + besides * (epochs - done + 1)

    least = done if looks or not images[1] else done + 1  # something must have been looked at
    best = max(least, _largest(total, limit, least, kept["most"]))
    if total(planned) <= (1 + SPARE) * limit and (best <= (1 + UNUSED) * planned or done > planned / 2):
        return planned
    return best


def _largest(total: Callable[[int], float], seconds: float, least: int, most: int) -> int:
    """Return the last number from `least` to `most` whose total, which rises, is within the seconds; least - 1 for none."""
    return least - 1 + sum(1 for _ in itertools.takewhile(lambda n: total(n) <= seconds, range(least, most + 1)))


def _seconds(row: Mapping[str, Any]) -> float:
    return float(row["train_seconds"] + row.get("val_seconds", 0.0))
