"""The training loop: reads top to bottom, and can be killed at any line and resumed to the same bytes."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import torch

from resfit.data.batches import epoch_order
from resfit.data.feed import feed, place_images
from resfit.data.images import ImageSet
from resfit.errors import ResfitError
from resfit.evaluation.metrics import accuracy, nll
from resfit.evaluation.predict import predict_logits
from resfit.recipe import Recipe
from resfit.runs import Run
from resfit.training.checkpoint import save_checkpoint, write_tensors
from resfit.training.compiled import compile_forward
from resfit.training.loss import load_teacher
from resfit.training.ranks import agree, all_rows, own_batches, own_part, own_size, present
from resfit.training.runlog import Interrupt, append_row
from resfit.training.schedule import Plateau, after_loss
from resfit.training.state import Best, TrainState, new_sums, shipped_weights, state_tensors
from resfit.training.step import make_rate, make_step

SAVE_SECONDS = 300.0  # between two checkpoints within an epoch

Show = Callable[[TrainState, int, float], None]


def train_loop(
    recipe: Recipe,
    state: TrainState,
    train_set: ImageSet,
    val_set: ImageSet | None,
    run: Run,
    seed: int,
    interrupt: Interrupt,
    show_step: Show,
    show_epoch: Callable[[dict[str, Any]], None],
) -> None:
    """Train `state` from where it stands to the recipe's end; without `val_set` the last weights are kept (`--refit`).

    Writes metrics rows, checkpoints and the best weights to the run folder. Raises Interrupted after a signal, with a
    checkpoint on disk, and ResfitError when the loss stopped being finite.
    """
    device, writes = next(state.model.parameters()).device, present().first
    own_val = [] if val_set is None else [own_part(val_set)]
    images, *val_images = place_images([s.images for s in (train_set, *own_val)], device)
    labels = torch.as_tensor(train_set.labels).to(device)
    batch_size, steps_per_epoch = batch_plan(recipe, len(train_set))
    rate = make_rate(recipe, steps_per_epoch)
    state.model.train()
    sizes = [*recipe.resizing.sizes, recipe.network.image_size]
    forward, compile_seconds = compile_forward(recipe, state.model, own_size(batch_size), sizes)
    run.update(compile_seconds=run.info.get("compile_seconds", 0.0) + compile_seconds)
    teacher = load_teacher(recipe, train_set.class_names, device)
    step = make_step(recipe, steps_per_epoch, device, teacher, forward)
    saved = time.monotonic()

    def save() -> None:
        _refuse_bad_step(run, state)
        if not writes:
            return
        header = {"step": state.step, "epoch": state.epoch, "seconds": state.seconds, "best": _plain(state.best)}
        header |= {"plateau": _plain(state.plateau)}
        header |= {"seed": seed, "class_names": train_set.class_names, "data": train_set.fingerprint}
        save_checkpoint(run.checkpoints, state.step, state_tensors(state), header)
        run.drop_other_best(state.best.epoch)  # only now does a checkpoint name the new one

    if state.step == 0:
        save()
    for epoch in range(state.epoch, recipe.train.epochs):
        if ends_early(recipe, epoch, state.best.epoch):
            break
        order = epoch_order(seed, epoch, len(train_set))
        done = state.step - epoch * steps_per_epoch
        started = time.monotonic() - state.seconds
        order, batch_sizes = own_batches(order, batch_size)
        with closing(feed(images, order, batch_sizes, done, steps_per_epoch, device)) as batches:
            for index, batch in batches:
                step(state, batch, labels[index], index, seed)
                state.seconds = time.monotonic() - started
                show_step(state, steps_per_epoch, state.seconds)
                if agree(interrupt, time.monotonic() - saved > SAVE_SECONDS, state.step):
                    save()
                    saved = time.monotonic()
                    interrupt.leave()
        _refuse_bad_step(run, state)
        loss, correct, count, _ = state.sums.tolist()
        state.seconds = time.monotonic() - started
        row = {"epoch": epoch, "step": state.step, "lr": rate(state.step - 1) * state.plateau.factor}
        count = max(count, 1.0)  # none where every step of a short epoch overflowed float16
        row |= {"train_loss": loss / count, "train_accuracy": correct / count, "train_seconds": state.seconds}
        looks = (epoch + 1) % recipe.train.validate_every == 0 or epoch + 1 == recipe.train.epochs
        if looks and val_set is not None and val_set.labels is not None:
            evaluated = time.monotonic()
            mean, std = recipe.data.mean or (), recipe.data.std or ()
            with shipped_weights(state) as model:
                logits = predict_logits(model, val_images[0], mean, std, recipe.tta, recipe.tta_below)
            logits = all_rows(logits, len(val_set))
            row |= {"val_accuracy": accuracy(logits, val_set.labels), "val_nll": nll(logits, val_set.labels)}
            if not math.isfinite(row["val_nll"]):
                raise _diverged(run, f"the validation loss was not finite after epoch {epoch + 1}")
            if state.best.is_beaten_by(row["val_accuracy"], row["val_nll"]):
                state.best.epoch, state.best.accuracy, state.best.nll = epoch, row["val_accuracy"], row["val_nll"]
                if writes:
                    write_tensors(run.best_file(epoch), state.weights(), asdict(state.best))
            if recipe.schedule.name == "plateau":
                state.plateau = after_loss(state.plateau, row["val_nll"], **recipe.schedule.params)
            row["val_seconds"] = time.monotonic() - evaluated
        if writes:
            append_row(run.metrics_file, row)
        show_epoch(row | {"best": state.best.epoch == epoch, "images_per_second": count / state.seconds})
        state.epoch, state.seconds, state.sums = epoch + 1, 0.0, new_sums(device)
        save()
        saved = time.monotonic()
        interrupt.leave()
    if val_set is None and writes:
        write_tensors(run.best_file(recipe.train.epochs - 1), state.weights(), {"epoch": recipe.train.epochs - 1})


def batch_plan(recipe: Recipe, count: int) -> tuple[int, int]:
    """Return (batch_size, steps_per_epoch); a last batch of a single image, which BatchNorm cannot take, is left out."""
    size = min(recipe.train.batch_size, count)
    return size, count // size + (count % size > 1)


def ends_early(recipe: Recipe, epoch: int, best_epoch: int) -> bool:
    """Return whether training ends before `epoch` because the best one lies too far back."""
    patience = recipe.train.early_stopping
    return patience > 0 and best_epoch >= 0 and epoch - 1 - best_epoch >= patience


def _refuse_bad_step(run: Run, state: TrainState) -> None:
    """Raise if a loss of this epoch was not finite, so that no checkpoint holds what came of it."""
    bad_step = state.sums[3].item()
    if bad_step >= 0:
        raise _diverged(run, f"the loss was not finite at step {bad_step:.0f} (epoch {state.epoch + 1})")


def _diverged(run: Run, what: str) -> ResfitError:
    return ResfitError(f"{run.folder}: {what}. Lower optim.lr or set optim.clip_norm, and train anew.")


def _plain(value: Best | Plateau) -> dict[str, Any]:
    """Return the fields, or nothing where all are as at the start: infinity is no JSON."""
    return asdict(value) if value != type(value)() else {}
