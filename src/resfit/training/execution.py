"""A run in its folder, from its newest checkpoint or its first step to its end, whatever ends it."""

import contextlib
from shlex import quote
from typing import Any

import torch

from resfit import durable
from resfit.data.images import ImageSet
from resfit.data.sources import open_source, split_manifest
from resfit.errors import ResourceError
from resfit.escaping import csv_text
from resfit.machine import versions
from resfit.recipe import Recipe, recipe_to_toml
from resfit.runs import Run
from resfit.training.checkpoint import checkpoints, drop_later, load_newest
from resfit.training.divergence import Diverged, roll_back
from resfit.training.init import make_state, refuse_other_init
from resfit.training.loop import batch_plan, train_loop
from resfit.training.memory import is_out_of_memory, out_of_memory
from resfit.training.outcome import finish
from resfit.training.precision import fix_precision
from resfit.training.ranks import choose_place, make_interrupt, present, shared
from resfit.training.runlog import Interrupt, Interrupted, Progress, Pruned, keep_rows, say
from resfit.training.saver import Saver
from resfit.training.shadow import note_size
from resfit.training.state import TrainState, adopt
from resfit.training.syncbn import unite
from resfit.training.timelimit import Deadline, Replanned, with_epochs


def execute(run: Run, recipe: Recipe, train_set: ImageSet, val_set: ImageSet | None, progress: Progress | None) -> Run:
    """Train in a folder that is held until the run has finished, and write down how it ended; returns the run.

    Raises Interrupted after a signal, Pruned, and what training raises: the last checkpoint stands.
    """
    info = run.info
    device, seed = choose_place(torch.device(info["device_type"])), info["seed"]
    same = {"recipe": recipe_to_toml(recipe), "seed": seed, "class_names": list(train_set.class_names)}
    same |= {"data": train_set.fingerprint}
    recipe = fix_precision(recipe, device)
    begun = shared(lambda: bool(checkpoints(run.checkpoints)) or run.metrics_file.exists())
    if not begun:
        refuse_other_init(recipe, info.get("init"))
    state = make_state(recipe, seed, device, None if begun else train_set)
    if begun:
        _load(run, state, same)  # raises: rows without a checkpoint must not start over in silence
    note_size(run)
    run.update(precision=recipe.train.precision, status="running", error=None)
    if present().many:
        recipe = unite(state, recipe)
    if present().first:
        for left in run.folder.rglob(".*.tmp"):  # what a kill within the durable writer left
            durable.remove(left)
        _write_manifest(run, recipe)
        keep_rows(run.metrics_file, state.epoch)
    progress = progress or _show(run, with_epochs(recipe, state.epochs), train_set, val_set, state.seconds)
    same |= {"versions": versions(), "threads": torch.get_num_threads()}
    try:
        with make_interrupt().watching() as interrupt:
            _train(recipe, state, train_set, val_set, run, same, interrupt, progress)
    except Interrupted as stop:
        _note_end(run, status="interrupted")
        say(f"{stop}; continue with: resfit resume {quote(str(run.folder))}")
        raise
    except Pruned:
        _note_end(run, status="pruned")
        raise
    except Exception as error:
        _note_end(run, status="failed", error=str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise
    if present().first:
        finish(run, with_epochs(recipe, state.epochs), state, train_set, val_set)
    return run


def _train(
    recipe: Recipe,
    state: TrainState,
    train_set: ImageSet,
    val_set: ImageSet | None,
    run: Run,
    same: dict[str, Any],
    interrupt: Interrupt,
    progress: Progress,
) -> None:
    """Train to the end, through rollbacks; what is out of memory says what would fit."""
    seed, (_, steps) = run.info["seed"], batch_plan(recipe, len(train_set))
    given, short, saver, planned = recipe, False, Saver(run, same, steps), False
    while not short:
        recipe = with_epochs(given, state.epochs)
        progress.epochs = recipe.train.epochs
        try:
            if planned:
                saver.save(state)  # killed from here on, it goes on by this plan
                planned = False
            train_loop(recipe, state, train_set, val_set, run, saver, seed, interrupt, progress.step, progress.epoch)
            return
        except Replanned as plan:
            say(f"{plan}")
            state.epochs, planned = plan.epochs, True
        except Diverged as error:
            roll_back(run, recipe, state, same, steps, error)
            saver = Saver(run, same, steps)
        except Exception as error:
            short = is_out_of_memory(error)
            if not short:
                raise
    raise out_of_memory(recipe, state, str(run.folder))  # here, where the failed step's memory is free again


def _show(run: Run, recipe: Recipe, train_set: ImageSet, val_set: ImageSet | None, seconds: float) -> Progress:
    """Return what shows training, and where there is a time limit keeps it."""
    if run.info.get("time_limit") is None:
        return Progress(recipe.train.epochs, len(train_set))
    return Deadline(run, recipe, (len(train_set), 0 if val_set is None else len(val_set)), seconds)


def _note_end(run: Run, **changes: str) -> None:
    """Write down how training ended; a disk that does not take it must not hide why it did."""
    with contextlib.suppress(ResourceError):
        run.update(**changes)


def _load(run: Run, state: TrainState, same: dict[str, Any]) -> None:
    tensors, header, damaged = shared(lambda: load_newest(run.checkpoints, same))
    for line in damaged:
        say(line)
    if present().first:
        drop_later(run.checkpoints, header["step"])  # or they would count among those that are kept
    adopt(state, tensors, header)
    now = {"threads": torch.get_num_threads(), **versions()}
    for name, then in {"threads": header["threads"], **header["versions"]}.items():
        if now.get(name) != then:
            say(f"{run.folder}: began with {name} {then}, goes on with {now.get(name)}: the last bits may differ")
    say(f"{run.folder}: continues at step {state.step} (epoch {state.epoch + 1})")


def _write_manifest(run: Run, recipe: Recipe) -> None:
    """Write down who is in which split where the source brings none of its own."""
    source, file = run.info["source"], run.folder / "split.csv"
    if source is None or file.exists():
        return
    opened = open_source(source)  # once: a table looks at every file that it lists
    if "all" in opened.splits:
        rows = split_manifest(opened, recipe.data.val_fraction, recipe.data.group_by)
        durable.write_text(file, csv_text([("id", "class", "split"), *rows]))
