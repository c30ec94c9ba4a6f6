"""How a run begins, continues and ends: `train` and `resume` around the loop."""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from resfit import durable
from resfit.budget import check_budget, duration_text
from resfit.data.feed import memory_limit
from resfit.data.groups import check_groups
from resfit.data.images import ImageSet
from resfit.data.listing import Source
from resfit.data.sources import Split, load_splits, open_source
from resfit.errors import DataError, GateError, UsageError
from resfit.evaluation.bundle import weights_digest
from resfit.evaluation.config import pixel_rule
from resfit.evaluation.holdout import find_source
from resfit.machine import choose_device, commit, default_threads, describe, tune, versions
from resfit.models.families import cost
from resfit.recipe import Recipe, recipe_to_toml
from resfit.recipefile import as_recipe
from resfit.runs import Run, new_run, open_run, refuse_taken
from resfit.training.execution import execute
from resfit.training.init import fix_init
from resfit.training.loss import check_teacher, load_teacher
from resfit.training.ranks import choose_place, one_first, present, shared, together
from resfit.training.resolve import balance_warnings, network_text, resolve
from resfit.training.runlog import Progress, say
from resfit.training.shadow import find_restarted, hold, is_restart, refuse_differences, rendezvous, shared_run
from resfit.training.timelimit import TimeLimit, as_limit, fit_epochs


@together
def train(
    recipe: str | Path | Recipe,
    data: str | Path,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    refit: bool = False,
    device: str = "auto",
    settings: Sequence[str] = (),
    time_limit: float | TimeLimit | None = None,
) -> Run:
    """Train a recipe (a value, file, shipped name, or network) on a data source and return its run.

    The validation split chooses the epoch; with `refit` training takes train + val and keeps the last weights. `out` is
    the run folder (default: runs/<name>-<n>). time_limit: seconds for all of this call; the epochs follow from the measured
    speed. Raises UsageError, DataError, GateError (over the budget, or the time), ResourceError.
    The process keeps what training sets: torch's thread count, denormals as zero, and the allocator's thresholds.
    """
    limit = as_limit(time_limit, settings)
    recipe = as_recipe(recipe, settings)
    check_place(data, out, device)
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed: {seed} is not from 0 to 2**63 - 1. Use a small whole number.")
    if out is not None and not is_restart():
        shared(lambda: refuse_taken(Path(out)))
    train_set, val_set = one_first(lambda: load_data(recipe, data, refit, aloud=True))
    return start(recipe, train_set, val_set, out, seed=seed, device=device, source=absolute(data), time_limit=limit)


def load_data(
    recipe: Recipe, data: str | Path | Source, refit: bool, aloud: bool = False
) -> tuple[ImageSet, ImageSet | None]:
    """Return (train, val), or (train + val, None) for `refit`, as the recipe's pixel rule makes them.

    With `aloud` a line says what the data was taken for. Raises GateError before an image is read where the network is over
    the budget whatever the number of classes.
    """
    _keep_validation(recipe, refit)
    if not check_budget(cost(replace(recipe.network, classes=2)), recipe.budget).ok:
        _keep_budget(recipe)
    how, opened = recipe.data, open_source(data)
    splits: tuple[Split, ...] = ("trainval",) if refit else ("train", "val")
    found = load_splits(opened, splits, pixel_rule(recipe), how.val_fraction, how.group_by)
    if how.group_by and "test" in opened.splits:  # by the names alone: the split is not opened
        names = ("train + val",) if refit else splits
        ids: dict[str, Sequence[str] | None] = {name: s.ids for name, s in zip(names, found, strict=True)}
        check_groups(ids | {"test": opened.list_split("test").ids}, how.group_by, opened.name)
    if aloud and opened.layout:
        say(f"{opened.name}: {opened.layout}")
    return found[0], None if refit else found[1]


def start(
    recipe: Recipe,
    train_set: ImageSet,
    val_set: ImageSet | None,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    source: str | None = None,
    progress: Progress | None = None,
    time_limit: TimeLimit | None = None,
) -> Run:
    """Make a run folder for images in memory and train in it; `source` is where `resume` and `test` find them again.

    `progress` is told of steps and epochs, and may end training by raising Pruned; it takes no `time_limit` beside it.
    """
    recipe = resolve(fix_init(recipe), train_set)
    _keep_validation(recipe, val_set is None)
    ids = {"train": train_set.ids} | ({"val": val_set.ids} if val_set else {})
    ungrouped = check_groups(ids, recipe.data.group_by, train_set.source) if recipe.data.group_by else ""
    verdict = _keep_budget(recipe)
    tune(default_threads())
    place = choose_place(choose_device(device))
    memory_limit(place)  # a size that cannot be read is said before a folder is made
    recipe = _fix_teacher(recipe)
    if warning := check_teacher(recipe, train_set, place):
        say(warning)
    timed = {}
    if time_limit is not None:
        images = (len(train_set), 0 if val_set is None else len(val_set))
        recipe, timed["time_limit"] = fit_epochs(recipe, place, images, time_limit)
        say(f"{recipe.train.epochs} epochs fit into {duration_text(time_limit.seconds)}")
    refuse_differences(recipe, seed, (train_set, val_set))
    folder = None if out is None else Path(out)
    begun = find_restarted(folder, recipe, {"seed": seed, "refit": val_set is None, "source": source})
    if begun is not None:
        return begun if _has_finished(begun) else _continue(begun, recipe, train_set, val_set, progress)
    run = shared_run(lambda: new_run(recipe.name, folder))
    with hold(run):
        if present().first:
            refuse_taken(run.folder)  # by a process that came first
            durable.write_text(run.recipe_file, recipe_to_toml(recipe))
        _describe(run, recipe, train_set, val_set, seed, place, source, verdict, **timed)
        say(f"{recipe.name}: {verdict}; {network_text(recipe.network)}")
        chosen = f"{len(val_set):,} to choose on" if val_set else "refit on train + val, last weights kept"
        classes = len(train_set.class_names)
        say(f"{train_set.source}: {len(train_set):,} images to train on, {chosen}; {classes} classes")
        for line in [*([ungrouped] if ungrouped else []), *balance_warnings(recipe, train_set)]:
            say(line)
        say(f"run folder: {run.folder}")
        return execute(run, recipe, train_set, val_set, progress)


def _describe(
    run: Run,
    recipe: Recipe,
    train_set: ImageSet,
    val_set: ImageSet | None,
    seed: int,
    place: torch.device,
    source: str | None,
    verdict: str,
    **more: Any,
) -> None:
    """Write run.json: from here on the folder is a run."""
    total = cost(recipe.network)
    run.update(
        status="running",
        name=recipe.name,
        seed=seed,
        refit=val_set is None,
        source=source,
        data={"train": train_set.fingerprint, "val": val_set.fingerprint if val_set else None},
        order=train_set.order,
        images={"train": len(train_set), "val": len(val_set) if val_set else 0},
        class_names=train_set.class_names,
        pixel_rule=asdict(pixel_rule(recipe)),
        params=total.params,
        macs=total.macs,
        budget=asdict(recipe.budget),
        verdict=verdict,
        teacher=weights_digest(recipe.distill.teacher),
        init=weights_digest(recipe.init),
        device=describe(place),
        device_type=str(place),
        rendezvous=rendezvous(),
        threads=torch.get_num_threads(),
        versions=versions(),
        commit=commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    )


@together
def resume(
    path: str | Path, data: str | Path | None = None, progress: Progress | None = None, *, fresh: bool = False
) -> Run:
    """Continue the run in a folder from its newest good checkpoint, with the threads and device it began with.

    On the CPU the result has the same bytes as a run that was never interrupted. `data` says where the images are now, if
    they moved; `fresh` starts over from the first step, by the same recipe and seed. Raises DataError when the images changed,
    ResourceError when no checkpoint is left, UsageError when a run is to start over whose test has been read.
    """
    run = shared_run(lambda: open_run(path))
    if fresh:
        shared(lambda: _refuse_tested(run))
    elif _has_finished(run):
        return run
    info, recipe = run.info, run.recipe
    source = find_source(run, data)
    tune(info["threads"])
    choose_device(info["device_type"])
    train_set, val_set = one_first(lambda: load_data(recipe, source, info["refit"]))
    if train_set.order != info["order"] or (val_set and val_set.fingerprint != info["data"]["val"]):
        raise DataError(f"{source}: its images, labels or their order changed since the run began. Train anew.")
    load_teacher(recipe, train_set.class_names, torch.device(info["device_type"]))
    if weights_digest(recipe.distill.teacher) != info.get("teacher"):
        raise UsageError(
            f"{recipe.distill.teacher}: the teacher has other weights than when the run began. Train anew."
        )
    refuse_differences(recipe, info["seed"], (train_set, val_set))
    return _continue(run, recipe, train_set, val_set, progress, fresh, source=absolute(source))


def _has_finished(run: Run) -> bool:
    """Return whether nothing is left to do, with a line that says so."""
    finished = shared(lambda: run.info["status"] == "finished" and (run.bundle / "config.json").exists())
    if finished:
        say(f"{run.folder}: has finished already")
    return finished


def _refuse_tested(run: Run) -> None:
    if run.receipt_file.exists():
        raise UsageError(f"{run.folder}: has been tested; starting over would lose what that is of. Use another --out.")


def _continue(
    run: Run,
    recipe: Recipe,
    train_set: ImageSet,
    val_set: ImageSet | None,
    progress: Progress | None,
    fresh: bool = False,
    **changes: str,
) -> Run:
    with hold(run):
        if not fresh and _has_finished(run):  # by a process that held it meanwhile
            return run
        run.update(**changes)
        if fresh and present().first:
            _start_over(run)
        return execute(run, recipe, train_set, val_set, progress)


def _start_over(run: Run) -> None:
    """Remove all that training made, the rows last: killed within, the run has not come so far, or must start over."""
    run.update(status="running")
    made = sorted(run.checkpoints.glob("*.safetensors"), reverse=True)
    for path in [run.summary_file, run.evaluation_file, *made, run.metrics_file]:
        durable.remove(path, must=True)


def check_place(data: str | Path, out: str | Path | None, device: str) -> None:
    """Say what is wrong with device and run folder before an image is read or a folder made."""
    choose_device(device)
    if os.path.isdir(data) and Path(out or "runs").resolve().is_relative_to(Path(data).resolve()):
        raise UsageError(
            f"{out or 'runs'}: lies inside the images at {data}, and would be read as one of them. Choose another --out."
        )


def _fix_teacher(recipe: Recipe) -> Recipe:
    """Return the recipe with its teacher's place made absolute, so that a run resumes from any folder."""
    if recipe.distill.teacher is None:
        return recipe
    teacher = str(Path(recipe.distill.teacher).absolute())
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"teacher": teacher})})


def _keep_budget(recipe: Recipe) -> str:
    verdict = check_budget(cost(recipe.network), recipe.budget)
    if not verdict.ok and recipe.budget.enforce:
        key = verdict.over[0]
        raise GateError(f"{recipe.name}: {verdict.text}. Take a smaller network or raise it: --set budget.{key}=...")
    return verdict.text


def _keep_validation(recipe: Recipe, refit: bool) -> None:
    """Refuse what looks at the validation split where there is none."""
    if refit and recipe.schedule.name == "plateau":
        raise UsageError(
            f"{recipe.name}: schedule.name: 'plateau' follows the validation loss, and --refit leaves no validation split. "
            "Use the rates it chose: --set schedule.name=multi-step --set schedule.milestones=[...]"
        )
    if refit and recipe.train.early_stopping:
        raise UsageError(
            f"{recipe.name}: train.early_stopping: --refit leaves no validation split to stop by. Set it to 0, and "
            "train.epochs to the number chosen."
        )


def absolute(data: str | Path) -> str:
    """Return where the data is, in words that hold from any folder."""
    return str(Path(data).absolute()) if os.path.exists(data) else str(data)
