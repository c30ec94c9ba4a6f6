"""One optimizer update, made once from the recipe: augment, normalise, forward, loss, backward, clip, update, average."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from resfit.data.augment import make_augment
from resfit.data.batches import derive, make_normalize
from resfit.plugins import function
from resfit.recipe import Recipe
from resfit.training.ema import update_average
from resfit.training.schedule import warmup
from resfit.training.state import TrainState

Step = Callable[[TrainState, Tensor, Tensor, Tensor, int], None]


def make_step(recipe: Recipe, steps_per_epoch: int, device: torch.device) -> Step:
    """Return `(state, images uint8 (N, 3, H, W), labels (N,), index (N,), seed) -> None`, which updates the state in place.

    The learning rate is a function of the step, the augmentation of (seed, epoch, index), dropout of (seed, step).
    """
    augment = make_augment(recipe.augment)
    rate = make_rate(recipe, steps_per_epoch)
    precision = make_autocast(recipe.train.precision, device)
    assert recipe.data.mean is not None, "the recipe is not resolved"
    assert recipe.data.std is not None, "the recipe is not resolved"
    normalize = make_normalize(recipe.data.mean, recipe.data.std, device)

    def step(state: TrainState, images: Tensor, labels: Tensor, index: Tensor, seed: int) -> None:
        for group in state.optimizer.param_groups:
            group["lr"] = rate(state.step)
        if recipe.network.dropout > 0:
            torch.manual_seed(derive(seed, state.step, "dropout"))
        inputs = normalize(augment(images, index, seed, state.epoch))
        with precision():
            logits = state.model(inputs)
            loss = cross_entropy(logits, labels, label_smoothing=recipe.train.label_smoothing)
        state.optimizer.zero_grad()
        torch.autograd.backward(loss)
        if recipe.optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(state.model.parameters(), recipe.optim.clip_norm, foreach=True)
        state.optimizer.step()
        if state.average is not None:
            update_average(state.average, state.model, recipe.train.ema_decay, state.step)
        _add(state, loss.detach(), logits.detach(), labels)
        state.step += 1

    return step


def make_rate(recipe: Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the 0-based step."""
    shape = function("schedules", recipe.schedule.name)
    epochs = recipe.train.epochs

    def rate(step: int) -> float:
        progress = step / (epochs * steps_per_epoch)
        climb = warmup((step + 1) / (epochs * steps_per_epoch), epochs, recipe.schedule.warmup_epochs)
        return float(recipe.optim.lr * climb * shape(progress, epochs, **recipe.schedule.params))

    return rate


def make_autocast(precision: str, device: torch.device) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Return the context for forward passes: bfloat16 where asked for or, for `auto`, where a CUDA card has it natively."""
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" or (precision == "auto" and native):
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext


def _add(state: TrainState, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
    """Add a batch to the epoch's sums, on the device: nothing here waits for it."""
    correct = (logits.argmax(1) == labels).sum()
    count = torch.full_like(loss, len(labels), dtype=state.sums.dtype)
    state.sums[:3] += torch.stack([loss * len(labels), correct, count]).to(state.sums.dtype)
    bad = (state.sums[3] < 0) & ~loss.isfinite()
    state.sums[3] = torch.where(bad, float(state.step), state.sums[3])
