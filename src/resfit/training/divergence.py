"""Values that are not finite: found before the update that they would spoil, named, and gone back from where a recipe says."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from resfit.errors import ResfitError, ResourceError
from resfit.recipe import Recipe
from resfit.runs import Run
from resfit.training.checkpoint import Loaded, checkpoints, drop_later, load_newest, read_step, save_checkpoint
from resfit.training.ranks import present, shared
from resfit.training.runlog import say
from resfit.training.state import TrainState, adopt, header_of, state_tensors

LOWER = 0.5  # what the learning rate is multiplied by at each rollback
MOST = 5  # rollbacks of a run


class Diverged(ResfitError):
    """A value was not finite; the message says which, and at which step."""


def not_finite(model: nn.Module, loss: Tensor) -> Tensor:
    """Return 1 where the loss () or a gradient is not finite, else 0: () float32, on the device, which is not waited for."""
    found = torch.where(loss.isfinite(), 0.0, 1.0)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    # what GradScaler calls: one pass over all gradients, here with the scale 1
    torch._amp_foreach_non_finite_check_and_unscale_(grads, found, torch.ones_like(found))
    return found


def explain(state: TrainState, loss: Tensor) -> str:
    """Name what was not finite at the step that is not yet made."""
    for name, parameter in state.model.named_parameters():
        if not parameter.isfinite().all():
            return f"the weight {name} was not finite at step {state.step}"
    if not loss.isfinite():
        return f"the loss was not finite at step {state.step}"
    named = [(name, p.grad) for name, p in state.model.named_parameters() if p.grad is not None]
    name = next(name for name, grad in named if not grad.isfinite().all())
    return f"the gradient of {name} was not finite at step {state.step}"


def refuse_diverged(state: TrainState, tensors: Mapping[str, Tensor]) -> None:
    """Raise Diverged if the state must not be kept: a step of this epoch failed, or one of `tensors` is not finite."""
    bad_step = state.sums[3].item()
    if bad_step >= 0:  # where the device is not waited for, known only now
        raise Diverged(f"the loss or a gradient was not finite at step {bad_step:.0f} (epoch {state.epoch + 1})")
    for name, value in tensors.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise Diverged(f"{name} was not finite after step {state.step - 1}")


def roll_back(run: Run, recipe: Recipe, state: TrainState, same: dict[str, Any], steps: int, error: Diverged) -> None:
    """Put the state back to the newest checkpoint of an epoch's start, with a lower rate, and note it; or raise ResfitError.

    `same` is what each checkpoint's header says of the run, `steps` an epoch's. Killed anywhere, it is done over, alike: only
    checkpoints of epochs' starts count, which no clock decides.
    """
    advice = "Lower optim.lr or set optim.clip_norm, and train anew."
    if recipe.optim.on_divergence == "stop":
        raise ResfitError(f"{run.folder}: {error}. {advice}") from error
    if len(state.rollbacks) == MOST:
        raise ResfitError(f"{run.folder}: {error}, after {MOST} rollbacks. {advice}") from error
    found = shared(lambda: _newest_start(run, same, steps))
    if found is None:
        raise ResfitError(f"{run.folder}: {error}, and no checkpoint of an epoch's start is left. {advice}") from error
    adopt(state, *found[:2])
    state.rollbacks.append(
        {"cause": str(error), "to_step": state.step, "lr_factor": LOWER ** (len(state.rollbacks) + 1)}
    )
    if present().first:
        drop_later(run.checkpoints, state.step)
        save_checkpoint(run.checkpoints, state.step, state_tensors(state), header_of(state) | same)
    say(f"{run.folder}: {error}; back at step {state.step}, with {state.lr_factor:g} times the recipe's rate")


def _newest_start(run: Run, same: dict[str, Any], steps: int) -> Loaded | None:
    """Return the newest checkpoint that verifies of those made where an epoch of `steps` begins."""
    starts = [step for path in checkpoints(run.checkpoints) if (step := read_step(path)) % steps == 0]
    for start in reversed(starts):
        with contextlib.suppress(ResourceError):
            return load_newest(run.checkpoints, same, start)
    return None
