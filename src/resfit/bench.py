"""What this machine can do, what the networks make of it, and what binds: the roofline of Williams et al. 2009, "Roofline: an
insightful visual performance model for multicore architectures", with the counts of `cost` instead of hardware counters.

Training counts 6 floating-point operations a multiply-accumulate, prediction 2, done or not: prediction on a CPU does fewer
where convolutions are Winograd's, and may pass 100%. Memory traffic is an estimate from above, as if no cache held anything:
see `TRAFFIC`.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from resfit.data.arrays import list_pixels
from resfit.data.augment import make_augment
from resfit.data.images import PixelRule
from resfit.evaluation.bundle import Bundle
from resfit.evaluation.stream import stream_logits
from resfit.machine import choose_device, default_threads, describe, synchronize, tune
from resfit.models.cost import Cost
from resfit.models.families import build, cost
from resfit.recipe import Recipe
from resfit.recipefile import load_recipe
from resfit.training.init import make_state
from resfit.training.precision import choose_precision
from resfit.training.step import make_step

NETWORKS = ("r4-lighter", "r1-4", "resnet-20")
SECONDS = 20.0
# How often a step moves each activation of each image (written, read; in training its gradient too, and itself once more),
# and each parameter (in training with gradient and momentum, read and written).
TRAFFIC = {"training": (6, 8), "prediction": (2, 1)}
OPERATIONS = {"training": 6, "prediction": 2}
RULE = (
    "augmentation binds where it takes over a fifth of the step; else compute or memory, whichever is nearer to its rate "
    "and at least half of it; else overhead"
)
TRY = {
    "augmentation": "fewer or cheaper augmentations: `resfit list` names them",
    "compute": "a network with fewer macs, smaller images, or on a GPU with it bfloat16: train.precision",
    "memory": "fewer activations for the same macs: wider and shallower, or a stride in the first stage",
    "overhead": "a larger train.batch_size or a wider network: the operations are too small for this device",
}


# one pass a step over whole images, so that rates and macs are of the same
PLAIN = (
    "data.mean=[0.5,0.5,0.5]",
    "data.std=[0.25,0.25,0.25]",
    "resizing={}",
    "freezing={}",
    "optim.sam_rho=0",
    "optim.sam_adaptive=false",
)


def run_bench(names: Sequence[str] = (), device: str = "auto", seconds: float = SECONDS) -> dict[str, Any]:
    """Measure the machine, then each network's training and prediction on random images, in about `seconds` altogether.

    Training is the recipe's step without resizing, freezing and SAM.

    Rates are GFLOP/s, GB/s and images/s; shares are of the machine's rates. The process keeps what `tune` sets. Raises
    UsageError for an unknown name, ResourceError for a device that is not there.
    """
    recipes = [load_recipe(name, PLAIN) for name in names or NETWORKS]
    place = choose_device(device)
    tune(default_threads())
    machine = _machine(place, seconds / 5)
    each = seconds * 4 / 5 / len(recipes)
    return {
        "device": describe(place),
        "threads": torch.get_num_threads(),
        **machine,
        "rule": RULE,
        "networks": [_network(recipe, place, machine, each) for recipe in recipes],
    }


def _machine(device: torch.device, seconds: float) -> dict[str, Any]:
    """Return the rate of a large matrix product in each native type, and of a large triad, a = b + 2 c."""
    side, count = (8192, 2**28) if device.type == "cuda" else (1024, 2**24)
    matrix: dict[str, float | None] = {"float32": None, "bfloat16": None}
    native = device.type != "mps" and choose_precision("bfloat16", device) == "bfloat16"
    for kind in (torch.float32, torch.bfloat16) if native else (torch.float32,):
        left = torch.randn(side, side, device=device).to(kind)
        out = torch.empty_like(left)
        rate = _per_second(partial(torch.mm, left, left, out=out), device, seconds / 3)
        matrix[str(kind).removeprefix("torch.")] = round(2 * side**3 * rate / 1e9, 1)
    b, c, a = (torch.ones(count, device=device) for _ in range(3))
    triads = _per_second(lambda: torch.add(b, c, alpha=2, out=a), device, seconds / 3)
    return {"matrix_gflops": matrix, "memory_gb_per_second": round(3 * 4 * count * triads / 1e9, 1)}


def _network(recipe: Recipe, device: torch.device, machine: dict[str, Any], seconds: float) -> dict[str, Any]:
    total, size = cost(recipe.network), recipe.network.image_size
    fast = machine["matrix_gflops"]
    half = device.type == "cuda" and fast["bfloat16"] is not None  # as train.precision "auto" has it
    peak, width = (fast["bfloat16"], 2) if half else (fast["float32"], 4)
    batch = recipe.train.batch_size
    while batch > 8 and 6 * total.macs * batch / (peak * 1e9) > seconds / 6:  # a slow machine takes smaller steps
        batch //= 2
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    steps, augmented = _train_rates(recipe, images, device, seconds)
    predicted = _predict_rate(recipe, device, batch, seconds / 3)

    def row(kind: str, images_per_second: float, peak: float, width: int, augmentation: float) -> dict[str, Any]:
        flops = OPERATIONS[kind] * total.macs * images_per_second / 1e9
        gigabytes = width * _moved(total, kind, batch) * images_per_second / 1e9
        shares = {"compute": flops / peak, "memory": gigabytes / machine["memory_gb_per_second"]}
        binds = what_binds(shares["compute"], shares["memory"], augmentation)
        return {
            "images_per_second": round(images_per_second, 1),
            "gflops": round(flops, 1),
            "share_of_matrix_rate": round(shares["compute"], 3),
            "share_of_memory_rate": round(shares["memory"], 3),
            "augmentation_share": round(augmentation, 4),
            "binds": binds,
            "try": TRY[binds],
        }

    return {
        "name": recipe.name,
        "params": total.params,
        "macs": total.macs,
        "batch_size": batch,
        "training": row("training", batch * steps, peak, width, steps / augmented if augmented else 0.0),
        "prediction": row("prediction", predicted, fast["float32"], 4, 0.0),
    }


def what_binds(compute: float, memory: float, augmentation: float) -> str:
    """Return what binds a step by `RULE`: shares of the matrix rate, of the memory rate, and of the step's time."""
    if augmentation > 0.2:
        return "augmentation"
    name, share = ("compute", compute) if compute >= memory else ("memory", memory)
    return name if share >= 0.5 else "overhead"


def _moved(total: Cost, kind: str, batch: int) -> float:
    """Return the numbers that one image moves through memory, by `TRAFFIC`."""
    activations, params = TRAFFIC[kind]
    return activations * total.activations + params * total.params / batch


def _train_rates(recipe: Recipe, images: torch.Tensor, device: torch.device, seconds: float) -> tuple[float, float]:
    """Return steps a second, and batches augmented a second (0 without augmentation)."""
    state, step = make_state(recipe, 0, device), make_step(recipe, 1000, device)
    state.model.train()
    index = torch.arange(len(images), device=device)
    labels = index % recipe.network.classes
    steps = _per_second(lambda: step(state, images, labels, index, 0), device, seconds / 2)
    if not recipe.augment:
        return steps, 0.0
    augment = make_augment(recipe.augment)
    return steps, _per_second(lambda: augment(images, index, 0, 0), device, seconds / 20)


def _predict_rate(recipe: Recipe, device: torch.device, batch: int, seconds: float) -> float:
    """Return images a second of prediction as `predict` does it, from pixels in memory."""
    spec, size = recipe.network, recipe.network.image_size
    model = build(spec).to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    names = tuple(map(str, range(spec.classes)))
    data = recipe.data
    assert data.mean is not None
    assert data.std is not None
    bundle = Bundle(spec, model, names, PixelRule(size), tuple(data.mean), tuple(data.std), "none", 1.0, {})
    some = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)

    def rate(count: int) -> float:
        pixels = np.broadcast_to(some[None], (count, *some.shape)).reshape(-1, size, size, 3)
        listing = list_pixels(pixels, None, (), None, "random images")
        started = time.perf_counter()
        stream_logits([listing], [bundle])
        return len(pixels) / (time.perf_counter() - started)

    first = rate(1)
    return rate(max(1, int(seconds * first / batch)))


def _per_second(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return how often a second `work` is done, after one call to warm up and one to plan; waits at the ends only."""

    def run(times: int) -> float:
        started = time.perf_counter()
        for _ in range(times):
            work()
        synchronize(device)
        return time.perf_counter() - started

    run(1)
    one = run(1)
    times = int(seconds / one) - 2
    return times / run(times) if times > 0 else 1 / one
