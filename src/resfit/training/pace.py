"""What training takes on this machine: the seconds of a step and of a look at val, measured, and those of epochs by them."""

import time
from collections.abc import Mapping
from functools import partial

import torch

from resfit.evaluation.config import VIEWS
from resfit.evaluation.predict import images_at_once, predict_logits
from resfit.machine import synchronize
from resfit.recipe import Distill, Recipe
from resfit.training.init import make_state
from resfit.training.precision import fix_precision
from resfit.training.step import make_step

MEASURED = 0.01, 0.3, 3.0  # what measuring a size may take: a share of the limit, seconds at least, seconds at most


def measure(recipe: Recipe, device: torch.device, limit: float) -> dict[int, float]:
    """Return the seconds an image of the recipe's training step takes at each size that training has, whole images last.

    Of a resolved recipe, on random images; a distillation's teacher and a compiler's gain are left to the first epoch.
    """
    alone = fix_precision(recipe.model_copy(update={"distill": Distill()}), device)
    seconds, size = _measuring(limit), recipe.network.image_size
    images = torch.randint(0, 256, (recipe.train.batch_size, 3, size, size), dtype=torch.uint8, device=device)
    index = torch.arange(len(images), device=device)
    state, step = make_state(alone, 0, device), make_step(alone, 1000, device)
    state.model.train()
    found = {}
    for side, begin, end in phases(recipe):
        steps, started, first = 0, time.perf_counter(), 0.0
        while steps < 2 or time.perf_counter() - started < seconds:
            state.step = int((begin + end) / 2 * 1000 * recipe.train.epochs)
            step(state, images, index % recipe.network.classes, index, 0)
            synchronize(device)
            steps += 1
            if steps == 1:  # it allocates, and lets oneDNN choose its kernels
                first = time.perf_counter() - started
        found[side] = (time.perf_counter() - started - first) / (steps - 1) / len(images)
    return found


def measure_look(recipe: Recipe, device: torch.device, limit: float) -> float:
    """Return the seconds that predicting an image of val takes, with its views; of a resolved recipe, on random images."""
    seconds, size = _measuring(limit), recipe.network.image_size
    model = make_state(recipe, 0, device).model
    count = min(recipe.train.batch_size, images_at_once(size))
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, device=device)
    look = partial(predict_logits, model, images, recipe.data.mean or (), recipe.data.std or ())
    look()  # the first one allocates
    rounds, started = 0, time.perf_counter()
    while rounds < 1 or time.perf_counter() - started < seconds:
        look()
        rounds += 1
    return VIEWS[recipe.tta] * (time.perf_counter() - started) / rounds / count


def _measuring(limit: float) -> float:
    """Return the seconds that measuring one thing may take."""
    share, least, most = MEASURED
    return min(max(share * limit, least), most)


def phases(recipe: Recipe) -> list[tuple[int, float, float]]:
    """Return (image size, begin, end) of training's progress, in order."""
    ends = (*recipe.resizing.until, 1.0)
    return list(zip((*recipe.resizing.sizes, recipe.network.image_size), (0.0, *ends[:-1]), ends, strict=True))


def train_seconds(
    recipe: Recipe, image_seconds: Mapping[int, float], images: int, epochs: float, done: float = 0
) -> float:
    """Return what the training of all `epochs` but the first `done` takes, by the seconds of an image at each size."""
    begun = done / epochs
    shares = ((side, max(0.0, end - max(begin, begun))) for side, begin, end in phases(recipe))
    return epochs * images * sum(image_seconds[side] * share for side, share in shares)
