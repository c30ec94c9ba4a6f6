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
from resfit.evaluation.metrics import accuracy, nll
from resfit.evaluation.predict import predict_logits
from resfit.recipe import Recipe
from resfit.runs import Run
from resfit.training.compiled import compile_forward
from resfit.training.divergence import Diverged, refuse_diverged
from resfit.training.loss import load_teacher
from resfit.training.ranks import agree, all_rows, own_batches, own_part, own_size
from resfit.training.runlog import Interrupt
from resfit.training.saver import Saver
from resfit.training.schedule import after_loss, total_steps
from resfit.training.state import TrainState, new_sums, shipped_weights
from resfit.training.step import make_rate, make_step

SAVE_SECONDS = 300.0  # between two checkpoints within an epoch

Show = Callable[[TrainState, int, float], None]


def train_loop(
    recipe: Recipe,
    state: TrainState,
    train_set: ImageSet,
    val_set: ImageSet | None,
    run: Run,
    saver: Saver,
    seed: int,
    interrupt: Interrupt,
    show_step: Show,
    show_epoch: Callable[[dict[str, Any]], None],
) -> None:
    """Train `state` from where it stands to the recipe's end; without `val_set` the last weights are kept (`--refit`).

    `saver` writes metrics rows, checkpoints and the best weights to the run folder. Raises Interrupted after a signal, with a
    checkpoint on disk; Diverged where a value is not finite, which is on no checkpoint; ResourceError where the disk does not
    take the first checkpoint, or the last.
    """
    device = next(state.model.parameters()).device
    own_val = [] if val_set is None else [own_part(val_set)]
    images, *val_images = place_images([s.images for s in (train_set, *own_val)], device)
    labels = torch.as_tensor(train_set.labels).to(device)
    batch_size, steps_per_epoch = batch_plan(recipe, len(train_set))
    rate, total = make_rate(recipe, steps_per_epoch), total_steps(recipe.train.epochs, steps_per_epoch)
    state.model.train()
    sizes = [*recipe.resizing.sizes, recipe.network.image_size]
    own_count = own_size(batch_size) // recipe.optim.accumulate
    forward, compile_seconds = compile_forward(recipe, state.model, own_count, sizes)
    run.update(compile_seconds=run.info.get("compile_seconds", 0.0) + compile_seconds)
    teacher = load_teacher(recipe, train_set.class_names, device)
    step = make_step(recipe, steps_per_epoch, device, teacher, forward)
    saved = time.monotonic()
    if state.step == 0:
        saver.save(state, must=True)
    last = -(-total // steps_per_epoch)
    for epoch in range(state.epoch, last):
        if ends_early(recipe, epoch, state.best.epoch):
            break
        order = epoch_order(seed, epoch, len(train_set))
        done = state.step - epoch * steps_per_epoch
        started = time.monotonic() - state.seconds
        order, batch_sizes = own_batches(order, batch_size)
        end = min(steps_per_epoch, total - epoch * steps_per_epoch)
        with closing(feed(images, order, batch_sizes, done, end, device)) as batches:
            for index, batch in batches:
                step(state, batch, labels[index], index, seed)
                state.seconds = time.monotonic() - started
                show_step(state, steps_per_epoch, state.seconds)
                if agree(interrupt, time.monotonic() - saved > SAVE_SECONDS, state.step):
                    saver.save(state, must=bool(interrupt.signal))
                    saved = time.monotonic()
                    interrupt.leave()
        refuse_diverged(state, {})
        loss, correct, count, _ = state.sums.tolist()
        state.seconds = time.monotonic() - started
        row = {"epoch": epoch, "step": state.step, "lr": rate(state.step - 1) * state.lr_factor}
        count = max(count, 1.0)  # none where every step of a short epoch overflowed float16
        row |= {"train_loss": loss / count, "train_accuracy": correct / count, "train_seconds": state.seconds}
        looks = (epoch + 1) % recipe.train.validate_every == 0 or epoch + 1 == last
        if looks and val_set is not None and val_set.labels is not None:
            evaluated = time.monotonic()
            mean, std = recipe.data.mean or (), recipe.data.std or ()
            with shipped_weights(state) as model:
                logits = predict_logits(model, val_images[0], mean, std, recipe.tta, recipe.tta_below)
            logits = all_rows(logits, len(val_set))
            row |= {"val_accuracy": accuracy(logits, val_set.labels), "val_nll": nll(logits, val_set.labels)}
            if not math.isfinite(row["val_nll"]):
                raise Diverged(f"the validation loss was not finite after epoch {epoch + 1}")
            if state.best.is_beaten_by(row["val_accuracy"], row["val_nll"]):
                state.best.epoch, state.best.accuracy, state.best.nll = epoch, row["val_accuracy"], row["val_nll"]
                saver.choose(epoch, state.weights(), asdict(state.best))
            if recipe.schedule.name == "plateau":
                state.plateau = after_loss(state.plateau, row["val_nll"], **recipe.schedule.params)
            row["val_seconds"] = time.monotonic() - evaluated
        saver.add_row(row)
        shown = row | {"best": state.best.epoch == epoch, "images_per_second": count / state.seconds}
        state.epoch, state.seconds, state.sums = epoch + 1, 0.0, new_sums(device)
        saver.save(state, must=bool(interrupt.signal) or epoch + 1 == last)
        saved = time.monotonic()
        show_epoch(shown)  # may end the run
        interrupt.leave()
    if val_set is None:
        saver.choose(state.epoch - 1, state.weights(), {"epoch": state.epoch - 1})
        saver.flush()
    if saver.failing:  # it ended early
        saver.save(state, must=True)


def batch_plan(recipe: Recipe, count: int) -> tuple[int, int]:
    """Return (batch_size, steps_per_epoch); a last batch of a single image, which BatchNorm cannot take, is left out."""
    size = min(recipe.train.batch_size, count)
    return size, count // size + (count % size > 1)


def ends_early(recipe: Recipe, epoch: int, best_epoch: int) -> bool:
    """Return whether training ends before `epoch` because the best one lies too far back."""
    patience = recipe.train.early_stopping
    return patience > 0 and best_epoch >= 0 and epoch - 1 - best_epoch >= patience
