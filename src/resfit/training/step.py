"""One optimizer update, made once from the recipe: augment, mix, forward, loss, backward, clip, update, average."""

from collections.abc import Callable

import torch
from torch import Tensor

from resfit.data.augment import make_augment
from resfit.data.batches import derive, make_normalize
from resfit.data.mix import make_mix
from resfit.plugins import function
from resfit.recipe import Recipe
from resfit.training.compiled import Forward
from resfit.training.course import make_freeze, make_shrink
from resfit.training.divergence import Diverged, explain, not_finite
from resfit.training.ema import update_average
from resfit.training.loss import Teacher, make_loss
from resfit.training.precision import clip, copy_buffers, make_autocast, put_back, scaled_update
from resfit.training.ranks import mean_gradients, present, sum_batch, total, weigh
from resfit.training.sam import climbed
from resfit.training.schedule import total_steps, warmup
from resfit.training.state import TrainState

Step = Callable[[TrainState, Tensor, Tensor, Tensor, int], None]


def make_step(
    recipe: Recipe,
    steps_per_epoch: int,
    device: torch.device,
    teacher: Teacher | None = None,
    forward: Forward | None = None,
) -> Step:
    """Return `(state, images uint8 (N, 3, H, W), labels (N,), index (N,), seed) -> None`, which updates the state in place.

    The learning rate is a function of the step (and of the plateau schedule's state), augmentation of (seed, epoch, index),
    mixing and dropout of (seed, step). `forward` stands for the state's model where it is compiled.
    """
    augment = make_augment(recipe.augment)
    mix = make_mix(recipe.mix, recipe.network.classes) if recipe.mix else None
    rate = make_rate(recipe, steps_per_epoch)
    precision = make_autocast(recipe.train.precision, device)
    given = recipe.train.class_weights
    assert given != "balanced", "the recipe is not resolved"
    weights = None if given == "none" else torch.tensor(given, device=device)
    loss_of = make_loss(recipe.train.label_smoothing, recipe.distill, teacher, weights)
    resizes, freezes = bool(recipe.resizing.sizes), bool(recipe.freezing.until)
    shrink, freeze = make_shrink(recipe.resizing), make_freeze(recipe.freezing)
    random = recipe.network.dropout > 0 or recipe.network.stochastic_depth > 0
    assert recipe.data.mean is not None, "the recipe is not resolved"
    assert recipe.data.std is not None, "the recipe is not resolved"
    normalize = make_normalize(recipe.data.mean, recipe.data.std, device)
    optim, ranks = recipe.optim, present()
    batch_size, own_statistics = recipe.train.batch_size, not recipe.train.sync_batchnorm

    def gradients(state: TrainState, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        state.optimizer.zero_grad()  # before the pass: CUDA graphs write the new ones where the old ones lie
        parts = min(optim.accumulate, len(inputs) // 2) or 1  # BatchNorm takes no part of a single image
        if parts == 1:
            loss, logits = part_gradients(state, inputs, targets, len(inputs))
        else:
            pairs = zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True)
            made = [part_gradients(state, *pair, len(inputs)) for pair in pairs]
            loss, logits = torch.stack([loss for loss, _ in made]).sum(), torch.cat([logits for _, logits in made])
        if ranks.many:
            mean_gradients(state.model, len(inputs), batch_size, own_statistics)
        return loss, logits

    def part_gradients(state: TrainState, inputs: Tensor, targets: Tensor, count: int) -> tuple[Tensor, Tensor]:
        with precision():
            logits = (forward or state.model)(inputs)
            loss = loss_of(logits, targets, inputs) if len(inputs) else logits.sum() * 0.0
        loss = loss if len(inputs) == count else loss * (len(inputs) / count)
        weighed = weigh(loss, count, batch_size) if ranks.many else loss
        torch.autograd.backward(weighed if state.scaler is None else state.scaler.scale(weighed))
        # CUDA graphs write the next pass's in the same place
        return loss.detach(), logits.detach() if len(inputs) == count else logits.detach().clone()

    steps = total_steps(recipe.train.epochs, steps_per_epoch)

    def progress(state: TrainState) -> float:
        return state.step / steps

    def step(state: TrainState, images: Tensor, labels: Tensor, index: Tensor, seed: int) -> None:
        lr = rate(state.step) * state.lr_factor
        for group in state.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        if random:
            torch.manual_seed(derive(seed, state.step, "dropout", *ranks.key))
        if freezes:
            freeze(state, progress(state))
        augmented = augment(images, index, seed, state.epoch) if len(index) else images  # a rank may have no share
        inputs, targets = normalize(augmented), labels
        if resizes:
            inputs = shrink(inputs, progress(state))
        if mix is not None:
            inputs, targets = mix(inputs, labels, seed, state.step)
        statistics = copy_buffers(state.model) if state.scaler is not None else []
        loss, logits = gradients(state, inputs, targets)
        if optim.sam_rho > 0:
            logits = logits.clone()  # CUDA graphs write the second pass's in the same place
            with climbed(state.model, optim.sam_rho, optim.sam_adaptive):
                gradients(state, inputs, targets)
        skipped, failed = None, ~loss.isfinite()
        if state.scaler is None:
            found = not_finite(state.model, loss)
            if ranks.many:
                total(found)  # all stop, or none
            if device.type != "cpu":  # is not waited for: the update is left out there; the next checkpoint says why
                skipped = failed = found > 0
                if getattr(state.optimizer, "_step_supports_amp_scaling", False):
                    state.optimizer.found_inf = found  # type: ignore[attr-defined]
            elif found:
                raise Diverged(explain(state, loss))
            clip(state.model, optim.clip_norm)
            state.optimizer.step()
        else:
            skipped, hopeless = scaled_update(state.scaler, state.model, state.optimizer, optim.clip_norm)
            put_back(list(state.model.buffers()), statistics, skipped)
            failed = torch.where(skipped, hopeless, failed)
        if state.average is not None:
            update_average(state.average, state.model, recipe.train.ema_decay, state.step, skipped)
        _add(state, loss, logits, targets if targets.ndim == 1 else targets.argmax(1), failed)
        state.step += 1

    return step


def make_rate(recipe: Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the 0-based step; `interval` "epoch" keeps an epoch's first rate through it."""
    shape = function("schedules", recipe.schedule.name)
    epochs, schedule = recipe.train.epochs, recipe.schedule
    steps = total_steps(epochs, steps_per_epoch)

    def rate(step: int) -> float:
        climb = warmup((step + 1) / steps, epochs, schedule.warmup_epochs)
        if schedule.interval == "epoch":
            step -= step % steps_per_epoch
        return float(recipe.optim.lr * climb * shape(step / steps, epochs, **schedule.params))

    return rate


def _add(state: TrainState, loss: Tensor, logits: Tensor, labels: Tensor, failed: Tensor) -> None:
    """Add a batch to the epoch's sums, on the device: nothing here waits for it. A mixture counts as its larger part.

    The first step that `failed` () bool is noted; one whose loss overflowed, without failing, is left out of the sums.
    """
    correct = (logits.argmax(1) == labels).sum()
    count = torch.full_like(loss, len(labels), dtype=state.sums.dtype)
    batch = torch.stack([loss * len(labels), correct, count]).to(state.sums.dtype)
    batch, finite, failed = sum_batch(batch, loss.isfinite(), failed)
    state.sums[:3] += torch.where(finite | failed, batch, 0.0)
    state.sums[3] = torch.where((state.sums[3] < 0) & failed, float(state.step), state.sums[3])
