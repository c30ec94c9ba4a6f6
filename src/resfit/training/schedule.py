"""Learning-rate schedules: pure functions of progress in [0, 1) that give a factor on the peak learning rate."""

import math


def cosine(progress: float, epochs: int, end: float) -> float:
    """Return half a cosine from 1 to `end` (Loshchilov & Hutter 2016, SGDR, arXiv 1608.03983, without restarts)."""
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


def step(progress: float, epochs: int, every_epochs: float, gamma: float) -> float:
    """Return `gamma` to the power of the number of whole `every_epochs` behind us."""
    # 1e-9: progress * epochs of a whole number of epochs may come out just below it
    return float(gamma ** math.floor(progress * epochs / every_epochs + 1e-9))


def warmup(progress: float, epochs: int, warmup_epochs: float) -> float:
    """Return the factor that climbs linearly to 1 over `warmup_epochs` (Goyal et al. 2017, arXiv 1706.02677)."""
    return min(1.0, progress * epochs / warmup_epochs) if warmup_epochs > 0 else 1.0
