"""Learning-rate schedules: pure functions of progress in [0, 1) that give a factor on the peak learning rate."""

import math
from dataclasses import dataclass


def total_steps(epochs: float, steps_per_epoch: int) -> int:
    """Return the steps of all epochs, the last of which may be a part of one."""
    return max(1, round(epochs * steps_per_epoch))


def cosine(progress: float, epochs: float, end: float) -> float:
    """Return half a cosine from 1 to `end` (Loshchilov & Hutter 2016, SGDR, arXiv 1608.03983, without restarts)."""
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


def step(progress: float, epochs: float, every_epochs: float, gamma: float) -> float:
    """Return `gamma` to the power of the number of whole `every_epochs` behind us."""
    # 1e-9: progress * epochs of a whole number of epochs may come out just below it
    return float(gamma ** math.floor(progress * epochs / every_epochs + 1e-9))


def warmup(progress: float, epochs: float, warmup_epochs: float) -> float:
    """Return the factor that climbs linearly to 1 over `warmup_epochs` (Goyal et al. 2017, arXiv 1706.02677)."""
    return min(1.0, progress * epochs / warmup_epochs) if warmup_epochs > 0 else 1.0


def multi_step(progress: float, epochs: float, milestones: tuple[float, ...], gamma: float) -> float:
    """Return `gamma` to the power of the number of milestones, in epochs, behind us."""
    return float(gamma ** sum(progress * epochs + 1e-9 >= milestone for milestone in milestones))


def one_cycle(progress: float, epochs: float, peak: float, start: float, end: float) -> float:
    """Return half a cosine up from `start` to 1 at progress `peak`, then one down to `end`.

    Smith & Topin 2017, "Super-convergence", arXiv 1708.07120; cosines as in fastai and torch.optim.lr_scheduler.OneCycleLR.
    The momentum is left as it is.
    """
    if progress < peak:
        return cosine(1 - progress / peak, epochs, start)
    return cosine((progress - peak) / (1 - peak), epochs, end)


def triangular(progress: float, epochs: float, peak: float, start: float, end: float) -> float:
    """Return a straight line from `start` up to 1 at progress `peak`, then one down to `end` (Smith 2015, arXiv 1506.01186)."""
    if progress < peak:
        return start + (1 - start) * progress / peak
    return end + (1 - end) * (1 - progress) / (1 - peak)


def warm_restarts(progress: float, epochs: float, first_epochs: float, growth: float, end: float) -> float:
    """Return a cosine that starts anew after `first_epochs`, and then each time after `growth` times as many.

    Loshchilov & Hutter 2016, "SGDR", arXiv 1608.03983.
    """
    begun, length = 0.0, first_epochs
    while begun + length <= progress * epochs + 1e-9:
        begun, length = begun + length, length * growth
    return cosine(max(0.0, progress * epochs - begun) / length, epochs, end)


def constant(progress: float, epochs: float, **params: float) -> float:
    """Return 1: what `after_loss` makes of the rate is all."""
    return 1.0


@dataclass
class Plateau:
    """What the validation loss has made of the rate: a factor on it, the best loss, and epochs since and to wait."""

    factor: float = 1.0
    best: float = float("inf")
    bad_epochs: int = 0
    cooldown: int = 0


def after_loss(
    state: Plateau, loss: float, factor: float, patience: int, threshold: float, cooldown: int, end: float
) -> Plateau:
    """Return the state after an epoch's validation loss, as torch's ReduceLROnPlateau (min, relative threshold) has it.

    The rate falls to `factor` of itself, not below `end` of the peak, after more than `patience` epochs without a loss
    below `1 - threshold` times the best; then `cooldown` epochs do not count.
    """
    better = loss < state.best * (1 - threshold)
    waiting = max(0, state.cooldown - 1)
    bad = 0 if better or state.cooldown > 0 else state.bad_epochs + 1
    best = min(loss, state.best) if better else state.best
    if bad > patience:
        return Plateau(max(state.factor * factor, end), best, 0, cooldown)
    return Plateau(state.factor, best, bad, waiting)
