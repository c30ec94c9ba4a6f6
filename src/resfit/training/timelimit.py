"""Training that keeps a time limit: the seconds of a step are measured, the epochs follow, the clock is looked at on the way.

The number of epochs, of which the last may be a part, is decided by a clock, and so is part of the state: a checkpoint has it,
a resumed run goes on with it.
"""

import math
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from resfit.budget import duration_text
from resfit.errors import GateError, UsageError
from resfit.recipe import Recipe, as_whole
from resfit.runs import Run
from resfit.training.pace import measure, measure_look, train_seconds
from resfit.training.ranks import present, shared
from resfit.training.runlog import Progress
from resfit.training.schedule import total_steps
from resfit.training.state import TrainState

MOST = 300  # epochs, or the recipe's own number where that is more: a small data set does not fill any limit
SPARE = 0.02  # of the limit, kept for what is not foreseen
OFF = 0.02  # of the limit: a plan that would end so much before or after is replaced
LOOK = 0.05  # of the limit, from one look at the clock to the next
PART = 0.01  # of an epoch: plans are multiples of it
RECENT = 4  # looks whose seconds tell how fast the machine is


class Replanned(Exception):
    """Another number of epochs than planned keeps the limit."""

    def __init__(self, epochs: float, planned: float) -> None:
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


def with_epochs(recipe: Recipe, epochs: float | None) -> Recipe:
    """Return the recipe with another number of epochs, of which a warm-up takes a fifth at most; None: as it is."""
    if epochs is None:
        return recipe
    warmup = min(recipe.schedule.warmup_epochs, epochs / 5)
    schedule = recipe.schedule.model_copy(update={"warmup_epochs": warmup})
    train = recipe.train.model_copy(update={"epochs": epochs})
    return recipe.model_copy(update={"schedule": schedule, "train": train})


def plan_epochs(
    recipe: Recipe, image_seconds: Mapping[int, float], look: float, train: int, seconds: float, most: float
) -> float:
    """Return the most epochs of `train` images, from 1 to `most`, that `seconds` have room for; 0 for none.

    A look at val, of `look` seconds, follows each epoch that has one, and there is one more at the end.
    """

    def total(epochs: float) -> float:
        looks = math.ceil(epochs / recipe.train.validate_every) + 1
        return train_seconds(recipe, image_seconds, train, epochs) + looks * look

    return largest(total, seconds, 1, most)


def fit_epochs(
    recipe: Recipe, device: torch.device, images: tuple[int, int], limit: TimeLimit
) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe with the epochs that fill what is left of a limit, and what run.json keeps of it, for `Deadline`.

    Raises GateError where there is no time for one epoch.
    """
    image_seconds, most = measure(recipe, device, limit.seconds), max(MOST, recipe.train.epochs)
    look = images[1] * measure_look(recipe, device, limit.seconds) if images[1] else 0.0
    left = limit.left
    epochs = plan_epochs(recipe, image_seconds, look, images[0], left, most)
    if not epochs:
        need = train_seconds(recipe, image_seconds, images[0], 1) + 2 * look
        raise GateError(
            f"time limit: {duration_text(limit.seconds)}: one epoch of {images[0]:,} images, and val, take about"
            f" {duration_text(need)} here, and {duration_text(max(left, 0.0))} are left. Give it more time, or take a smaller"
            " network."
        )
    sides = {str(side): value for side, value in image_seconds.items()}
    kept = {"seconds": limit.seconds, "before": limit.spent, "most": most, "image_seconds": sides, "look_seconds": look}
    return with_epochs(recipe, epochs), kept


@dataclass(frozen=True)
class Standing:
    """Where a run stands in its time, for `replan`.

    epochs: done, the running one's share among them; least: the fewest that training may still have; spent: seconds since the
    limit began; slower: what a step took of late, in those that were measured; look: seconds of a look at val; besides: seconds
    of an epoch that are neither.
    """

    epochs: float
    least: float
    spent: float
    slower: float
    look: float
    besides: float


def image_seconds_of(kept: Mapping[str, Any]) -> dict[int, float]:
    """Return the measured seconds of an image at each size, whose keys JSON has made text."""
    return {int(side): float(value) for side, value in kept["image_seconds"].items()}


def replan(recipe: Recipe, kept: Mapping[str, Any], train: int, at: Standing, planned: float) -> float:
    """Return how many epochs of `train` images there should be: those planned, where they end near enough to the limit."""
    limit, every, image_seconds = float(kept["seconds"]), recipe.train.validate_every, image_seconds_of(kept)

    def total(epochs: float) -> float:
        left = train_seconds(recipe, image_seconds, train, epochs, at.epochs) * at.slower
        looks = math.ceil(epochs / every) - math.floor(at.epochs / every) + 1
        return at.spent + left + looks * at.look + (math.ceil(epochs) - math.floor(at.epochs)) * at.besides

    aim = (1 - SPARE) * limit
    if abs(total(planned) - aim) <= OFF * limit:
        return planned
    return largest(total, aim, at.least, kept["most"]) or _in_parts(_parts(at.least))


class Deadline(Progress):
    """Shows training, looks at the clock on the way, and raises Replanned where other epochs keep the limit better.

    `seconds` are those that the running epoch had before it was interrupted.
    """

    def __init__(self, run: Run, recipe: Recipe, images: tuple[int, int], seconds: float) -> None:
        super().__init__(recipe.train.epochs, images[0])
        self.recipe, self.train, self.kept = recipe, images[0], run.info["time_limit"]
        self.image_seconds = image_seconds_of(self.kept)
        self.must_look = images[1] > 0
        self.rows = run.metrics if run.metrics_file.exists() else []
        self.spent = float(self.kept["before"]) + seconds + sum(map(_seconds, self.rows))
        self.began = self.looked = time.monotonic()
        self.recent = deque[tuple[float, float]](maxlen=RECENT)  # seconds as measured, seconds taken
        self.last = 0.0, 0.0  # epochs, and their training seconds, at the last look
        self.first: tuple[int, float] | None = None  # epochs, and seconds besides theirs, at the first step

    def step(self, state: TrainState, steps_per_epoch: int, seconds: float) -> None:
        """Draw the live line, and look at the clock where that is long ago."""
        super().step(state, steps_per_epoch, seconds)
        if self.first is None:
            self.first = len(self.rows), self._besides(seconds)
        over = state.step >= total_steps(self.epochs, steps_per_epoch)
        if not (over or present().many):  # many ranks have a clock each
            at = state.step / steps_per_epoch
            self._follow(self._look(at, at, seconds))

    def epoch(self, row: dict[str, Any]) -> None:
        """Print the line of a finished epoch, and look at the clock."""
        super().epoch(row)
        self.rows = [*(old for old in self.rows if old["epoch"] < row["epoch"]), row]  # fewer after a rollback
        done = row["epoch"] + 1
        if done < self.epochs:
            blind = self.must_look and "val_seconds" not in row  # the weights that are kept must be looked at
            self._follow(shared(lambda: self._look(done, done + blind * done / row["step"], 0.0)))

    def _follow(self, epochs: float) -> None:
        if epochs != self.epochs:
            raise Replanned(epochs, self.epochs)

    def _look(self, done: float, least: float, seconds: float) -> float:
        """Return how many epochs there should be, by the clock where it is time to look; `seconds` are the running epoch's."""
        now = time.monotonic()
        if now - self.looked < LOOK * float(self.kept["seconds"]):
            return self.epochs
        epochs, trained = self.last
        self.last = done, seconds + sum(float(row["train_seconds"]) for row in self.rows)
        if self.last[1] > trained and done > epochs:  # else it was rolled back
            made = partial(train_seconds, self.recipe, self.image_seconds, self.train, self.epochs)
            self.recent.append((made(epochs) - made(done), self.last[1] - trained))
        planned, taken = (sum(column) for column in zip(*self.recent, strict=True))
        looks = [float(row["val_seconds"]) for row in self.rows if "val_seconds" in row]
        first, besides = self.first or (0, 0.0)
        at = Standing(
            epochs=done,
            least=least,
            spent=self.spent + now - self.began,
            slower=taken / planned,
            look=sum(looks) / len(looks) if looks else taken / planned * float(self.kept["look_seconds"]),
            besides=max(0.0, self._besides(seconds) - besides) / max(1, len(self.rows) - first),
        )
        self.looked = now
        return replan(self.recipe, self.kept, self.train, at, self.epochs)

    def _besides(self, seconds: float) -> float:
        return self.spent + time.monotonic() - self.began - seconds - sum(map(_seconds, self.rows))


def largest(total: Callable[[float], float], seconds: float, least: float, most: float) -> float:
    """Return the largest multiple of PART, `least` to `most`, whose total, which rises, is within the seconds; 0 for none."""
    first, last = _parts(least), int(most / PART)
    found = bisect_right(range(first, last + 1), seconds, key=lambda parts: total(parts * PART))
    return _in_parts(first + found - 1) if found else 0


def _parts(epochs: float) -> int:
    """Return how many parts have room for so many epochs."""
    return math.ceil(round(epochs / PART, 6))


def _in_parts(parts: int) -> float:
    return as_whole(round(parts * PART, 2))


def _seconds(row: Mapping[str, Any]) -> float:
    return float(row["train_seconds"] + row.get("val_seconds", 0.0))
