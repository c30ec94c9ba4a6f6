"""A worker of a study: takes trials from its database and trains them until there are enough, then the finalists.

Started by launch.py as `python -m resfit.study.worker FOLDER NUMBER PARENT`. It ends with its parent and at the time limit:
after the running step, with a checkpoint, and its trial's slot free for another worker.
"""

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import optuna

from resfit.budget import check_budget
from resfit.data.images import ImageSet, PixelRule
from resfit.data.sources import load_splits
from resfit.errors import DataError, ResfitError, ResourceError, UsageError
from resfit.evaluation.config import pixel_rule
from resfit.models.families import cost
from resfit.recipe import Recipe
from resfit.runs import Run
from resfit.study.answer import finalists
from resfit.study.plan import STORAGE, Plan, read_plan
from resfit.study.space import Row, Space
from resfit.study.trials import (
    FAILED,
    OVER,
    GivenUp,
    Wanted,
    begin,
    fill,
    finished,
    give_up,
    guarded,
    list_rows,
    open_study,
    slot_of,
    stands,
    suggest,
)
from resfit.training.launch import resume, start
from resfit.training.memory import OutOfMemoryError
from resfit.training.resolve import resolve
from resfit.training.runlog import Interrupted, Progress, Pruned, say

Drawn = tuple[Recipe, int]  # a recipe and its seed
Draw = Callable[[optuna.Trial], Drawn]


class Images:
    """The training and validation images, read once for each size and split that recipes ask for."""

    def __init__(self, data: str, fingerprint: str) -> None:
        self.data, self.fingerprint = data, fingerprint
        self.read: dict[tuple[PixelRule, float, str | None], tuple[ImageSet, ImageSet]] = {}

    def of(self, recipe: Recipe) -> tuple[ImageSet, ImageSet]:
        """Return (train, val) as the recipe sees them. Raises DataError where they are not the study's."""
        key = (pixel_rule(recipe), recipe.data.val_fraction, recipe.data.group_by)
        if key not in self.read:
            train_set, val_set = load_splits(self.data, ("train", "val"), *key)
            if train_set.fingerprint != self.fingerprint:
                raise DataError(f"{self.data}: its images changed since the search began. Choose another --out.")
            self.read[key] = train_set, val_set
        return self.read[key]

    def over_budget(self, recipe: Recipe) -> float:
        """Return by what share the recipe's network, for these classes, exceeds the limit it exceeds most; 0 where none."""
        recipe = resolve(recipe, self.of(recipe)[0])
        return excess(recipe)


def excess(recipe: Recipe) -> float:
    """Return by what share a network exceeds the limit of its budget that it exceeds most; 0 where none, or not enforced."""
    total, budget = cost(recipe.network), recipe.budget
    if check_budget(total, budget).ok or not budget.enforce:
        return 0.0
    spent = {"params": total.params, "macs": total.macs, "bytes": total.weight_bytes, "ram": total.peak}
    limits = {name: getattr(budget, f"max_{name}") for name in spent}
    return float(max(spent[name] / limit - 1 for name, limit in limits.items() if limit is not None))


class Phase(NamedTuple):
    """A study to fill: its slots, the folder of its runs, and what draws the recipe of a trial."""

    study: optuna.Study
    wanted: Wanted
    folder: Path
    draw: Draw


def work(folder: Path, number: int, plan: Plan) -> None:
    """Train until the study has what the plan asks for, or its time is over. Raises Interrupted after a signal."""
    images = Images(plan.data, plan.fingerprint)
    for phase in phases(folder, number, plan, images):
        fill_phase(phase, images, plan)


def phases(folder: Path, number: int, plan: Plan, images: Images) -> Generator[Phase, None, None]:
    """Yield the trials, unless one change is made at a time; and, once they are there, the rows."""
    space = plan.load_space()
    search, same = space.search, {"space": space.text(), "data": plan.fingerprint}
    with guarded(plan.storage):
        if search.mode == "search":
            with open_study(plan.storage, space.name, same, search, number, plan.beat) as study:
                yield Phase(study, plan.trials, folder / "trials", partial(drawn, space))
                rows = finalists(space, study) if len(finished(study)) >= plan.trials else {}
        else:
            rows = dict(enumerate(space.rows()))
        over = [number for number, row in rows.items() if images.over_budget(row.recipe)]
        seeds = [search.seed + 1 + more for more in range(search.seeds)]
        plain = search.model_copy(update={"pruning": "none", "sampler": "random"})
        with open_study(plan.storage, f"{space.name}/rows", same, plain, number, plan.beat) as study:
            study.set_user_attr(OVER, over)
            labels = {number: row.label for number, row in rows.items() if number not in over}
            yield Phase(study, list_rows(study, labels, seeds), folder / "rows", partial(listed, rows))


def drawn(space: Space, trial: optuna.Trial) -> Drawn:
    """Return the recipe of a point that the engine draws, and the search's seed. Raises UsageError where it makes none."""
    return space.recipe(suggest(trial, space), f"{space.name}-{slot_of(trial)}"), space.search.seed


def listed(rows: dict[int, Row], trial: optuna.Trial) -> Drawn:
    """Return the recipe and the seed that the trial says."""
    row, seed = (trial.suggest_int(name, 0, 2**31) for name in ("row", "seed"))
    if row not in rows:  # all were taken when this trial was asked for
        give_up(trial, "surplus")
    return rows[row].recipe, seed


def fill_phase(phase: Phase, images: Images, plan: Plan, most: float = math.inf) -> None:
    """Train until a phase is full, `most` slots have been finished here, or the time is over."""
    objective = partial(_objective, phase, images, plan)
    with guarded(plan.storage):
        try:
            fill(phase.study, phase.wanted, objective, partial(is_over, plan), plan.beat, most)
        except Interrupted:
            if not is_over(plan):
                raise
        for slot in finished(phase.study):  # the bundles have the weights, and a pruned trial needs none
            shutil.rmtree(_place(phase.folder, slot) / "checkpoints", ignore_errors=True)


def _place(folder: Path, slot: str) -> Path:
    return folder / slot.replace("/", "-seed-")


def is_over(plan: Plan) -> bool:
    """Return whether the time limit has passed, or the parent has gone."""
    return os.getppid() != plan.parent or (plan.until is not None and time.time() >= plan.until)


def _objective(phase: Phase, images: Images, plan: Plan, trial: optuna.Trial) -> float:
    """Train a trial and return its validation accuracy."""
    begin(phase.study, trial)
    try:
        recipe, seed = phase.draw(trial)
        over = images.over_budget(recipe)
    except UsageError as error:
        trial.set_user_attr("error", str(error))
        trial.set_constraint("recipe", 1.0)
        give_up(trial, "refused")
    trial.set_constraint("budget", over)
    if over:
        give_up(trial, "over budget")
    if reason := stands(phase.study, trial, phase.wanted):
        give_up(trial, reason)
    total = cost(recipe.network)
    for name, value in (("params", total.params), ("macs", total.macs), ("recipe", recipe.name)):
        trial.set_user_attr(name, value)
    run = Run(_place(phase.folder, slot_of(trial)))
    try:
        accuracy = _trained(run, recipe, seed, images, plan, Watch(trial, recipe, len(images.of(recipe)[0]), plan))
    except Pruned as error:
        raise optuna.TrialPruned from error
    except OutOfMemoryError as error:
        trial.set_user_attr("error", str(error))
        give_up(trial, FAILED)
    except (DataError, ResourceError) as error:
        if "another process is training it" in str(error):  # SQLite may give one waiting trial to two
            raise GivenUp from error
        raise  # not the trial's fault
    except ResfitError as error:
        trial.set_user_attr("error", str(error))
        give_up(trial, FAILED)
    return accuracy


def _trained(run: Run, recipe: Recipe, seed: int, images: Images, plan: Plan, watch: "Watch") -> float:
    """Return the accuracy of a run, begun or continued; Pruned ends it early."""
    if run.info_file.exists():
        for row in run.metrics:
            watch.report(row)
        resume(run.folder, plan.data, watch)
    else:
        train_set, val_set = images.of(recipe)
        start(recipe, train_set, val_set, run.folder, seed=seed, device=plan.device, source=plan.data, progress=watch)
    watch.trial.set_user_attr("seconds", round(run.summary["train_seconds"], 2))
    accuracy: float = run.summary["val"]["accuracy"]
    return accuracy


class Watch(Progress):
    """Reports each epoch's validation accuracy to the study, which may end the trial; asks training to stop in time."""

    def __init__(self, trial: optuna.Trial, recipe: Recipe, images: int, plan: Plan) -> None:
        super().__init__(recipe.train.epochs, images, f"{slot_of(trial)} ")
        self.trial, self.plan, self.asked, self.reported = trial, plan, False, set[int]()

    def step(self, state: object, steps_per_epoch: int, seconds: float) -> None:
        """Stop, once, where the parent has gone or the time is over."""
        if not self.asked and is_over(self.plan):
            self.asked = True
            if threading.current_thread() is not threading.main_thread():  # on a cluster; the last checkpoint stands
                raise Interrupted(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    def epoch(self, row: dict[str, float]) -> None:
        """Print the epoch's line and report it."""
        super().epoch(row)
        self.report(row)

    def report(self, row: dict[str, float]) -> None:
        """Report a row of metrics. Raises Pruned where the study has seen enough."""
        epoch = int(row["epoch"])
        if "val_accuracy" in row and epoch not in self.reported:
            self.reported.add(epoch)
            self.trial.report(row["val_accuracy"], epoch + 1)
            if epoch + 1 < self.epochs and self.trial.should_prune():
                raise Pruned(f"pruned after epoch {epoch + 1}")


def main() -> None:
    """Work as the plan in the folder says; one line and an exit code for what goes wrong."""
    folder, number, parent = sys.argv[1], *map(int, sys.argv[2:])
    try:
        work(Path(folder), number, read_plan(Path(folder), os.environ[STORAGE], parent))
    except Interrupted as stop:
        sys.exit(stop.exit_code)
    except ResfitError as error:
        say(f"resfit: {error}")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
