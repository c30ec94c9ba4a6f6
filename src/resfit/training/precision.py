"""Precision: which one a device computes in, autocast, and float16's loss scaling without a wait for the device.

Micikevicius et al. 2017, "Mixed precision training", arXiv 1710.03740. An overflow takes back BatchNorm's statistics and the
average too, which torch.amp.GradScaler by itself does not.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from resfit.machine import describe, has_bfloat16
from resfit.recipe import Recipe
from resfit.training.runlog import say

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
LEAST_SCALE = 1.0  # below it the gradients overflow by themselves: that is divergence


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the precision to train in: `wanted` where the device has it natively, else what "auto" stands for there.

    "auto" is bfloat16 on CUDA cards that have it natively, float16 on older ones, float32 on the CPU, where bfloat16 pays only
    with instructions for it (three times slower without), and on MPS.
    """
    bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    auto = "bfloat16" if bfloat16 else "float16" if device.type == "cuda" else "float32"
    native = {"auto": False, "float32": True, "bfloat16": bfloat16, "float16": device.type in ("cuda", "mps")}
    if device.type == "cpu":
        native["bfloat16"] = has_bfloat16()
    elif device.type == "mps":
        native["bfloat16"] = True
    return wanted if native[wanted] else auto


def fix_precision(recipe: Recipe, device: torch.device) -> Recipe:
    """Return the recipe with the precision that `device` trains in; a line says where that is not the one asked for."""
    wanted, taken = recipe.train.precision, choose_precision(recipe.train.precision, device)
    if wanted not in ("auto", taken):
        say(f"train.precision: {wanted} is not native to {describe(device)}, where it is slower; {taken} is taken")
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"precision": taken})})


def make_autocast(precision: str, device: torch.device) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Return the context for forward passes in "float32", "bfloat16" or "float16"; "auto" as `choose_precision` has it."""
    dtype = DTYPES.get(choose_precision("auto", device) if precision == "auto" else precision)
    return contextlib.nullcontext if dtype is None else lambda: torch.autocast(device.type, dtype)


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler | None:
    """Return what scales the loss of float16, whose gradients would vanish; the other precisions need none."""
    chosen = choose_precision("auto", device) if precision == "auto" else precision
    return torch.amp.GradScaler(device.type) if chosen == "float16" else None


def clip(model: nn.Module, norm: float | None) -> None:
    """Scale all gradients down together where their norm is above `norm`; None leaves them."""
    if norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), norm, foreach=True)


def scaled_update(
    scaler: torch.amp.GradScaler, model: nn.Module, optimizer: torch.optim.Optimizer, clip_norm: float | None
) -> tuple[Tensor, Tensor]:
    """Unscale and clip the gradients, update unless one of them is not finite, and adjust the scale.

    Returns (skipped, hopeless), () bool on the device: no update was made; and that was not for the scale, which is below
    LEAST_SCALE already. Fused optimizers and those with `_step_supports_amp_scaling` skip on the device; for others
    GradScaler waits for it.
    """
    one = torch.ones((), device=next(model.parameters()).device)
    before = scaler.scale(one)
    scaler.unscale_(optimizer)
    clip(model, clip_norm)
    scaler.step(optimizer)
    scaler.update()
    skipped = scaler.scale(one) < before  # only an overflow lowers it
    return skipped, skipped & (before < LEAST_SCALE)


def copy_buffers(model: nn.Module) -> list[Tensor]:
    """Return copies of the model's buffers: BatchNorm's statistics."""
    return [value.clone() for value in model.buffers()]


def put_back(values: list[Tensor], old: list[Tensor], skipped: Tensor) -> None:
    """Give each of `values` its old content in place where `skipped` () bool says so, without waiting for the device."""
    for value, before in zip(values, old, strict=True):
        value.copy_(torch.where(skipped, before, value))
