"""How the cost of training grows on the CPU: images/s against one quantity at a time, the others at a base; prints JSON.

Usage: python benchmarks/growth.py [--repeats 5] [--seconds 0.5] [--only batch_size ...] [--out results]
The base is ResNet-8 (widths 16,32,64, one block a stage), batch 128, 32 pixels, 10,000 images, all threads: resfit's own step
with crop and flip on synthetic pixels, without checkpoints and evaluation. A rate is that of as many steps as take `--seconds`;
the repeats of all points of a quantity alternate. The number of images is that of a mapped file of random pixels (3 GB at
a million, in $TMPDIR), which resfit.data.feed streams; elsewhere they are held whole. On two quiet cores: 5 minutes.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resfit.data.batches import epoch_order
from resfit.data.feed import feed
from resfit.machine import default_threads, tune
from resfit.models.families import cost
from resfit.recipefile import load_recipe
from resfit.training.init import make_state
from resfit.training.step import make_step
from result import keep, show

CPU = torch.device("cpu")
BASE = {"batch_size": 128, "width": 16, "depth": 1, "image_size": 32, "images": 10_000}
POINTS: dict[str, tuple[int, ...]] = {
    "batch_size": (16, 32, 64, 128, 256, 512),
    "width": (8, 16, 32, 64),
    "depth": (1, 2, 3, 5),
    "image_size": (16, 24, 32, 48, 64),
    "images": (10_000, 100_000, 1_000_000),
    "threads": (1, 2),
}
WORDS = {
    "batch_size": "batch size",
    "width": "width of the first stage (of 1, 2, 4 times it)",
    "depth": "blocks a stage",
    "image_size": "side of an image, pixels",
    "images": "images, streamed from a memory-mapped file",
    "threads": "threads",
}
Steps = Callable[[int], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--only", nargs="+", choices=POINTS, default=list(POINTS))
    parser.add_argument("--most-images", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, help="also write the object to growth.json in this folder")
    options = parser.parse_args()
    threads = default_threads()
    tune(threads)
    with tempfile.TemporaryDirectory() as scratch:
        growth = {name: grow(name, options, threads, Path(scratch)) for name in options.only}
    base = next(
        point["rates"] for name in growth for point in growth[name]["points"] if point["at"] == BASE.get(name, threads)
    )
    for curve in growth.values():
        for point in curve["points"]:
            del point["rates"]
    value = show(
        "CPU training images/s of ResNet-8, batch 128, 32 pixels, and how it grows",
        base,
        None,
        data="random pixels",
        digits=1,
        goal_is="none",
        threads=threads,
        growth=growth,
    )
    keep(options.out, "growth", value)


def grow(name: str, options: argparse.Namespace, threads: int, scratch: Path) -> dict[str, Any]:
    """Return a quantity's points: its value, images/s (median and spread), parameters and macs where these change."""
    most = options.most_images if name == "images" else 10**9
    cores = max(threads, 1) if name == "threads" else 10**9
    points = [at for at in POINTS[name] if at <= most and at <= cores]
    ready = [(at, *prepare(name, at, scratch)) for at in points]
    rates: dict[int, list[float]] = {at: [] for at in points}
    for repeat in range(options.repeats + 1):
        for at, steps, batch_size in ready:
            torch.set_num_threads(at if name == "threads" else threads)
            rate = timed(steps, batch_size, options.seconds)
            if repeat > 0:  # the first warms up
                rates[at].append(rate)
    torch.set_num_threads(threads)
    found = []
    for at in points:
        spec = recipe_at(name, at).network
        point: dict[str, Any] = {"at": at, "images_per_second": round(statistics.median(rates[at]), 1)}
        point |= {"spread": [round(min(rates[at]), 1), round(max(rates[at]), 1)], "rates": rates[at]}
        found.append(point | {"params": cost(spec).params, "macs": cost(spec).macs})
    return {"quantity": WORDS[name], "points": found}


def recipe_at(name: str, at: int) -> Any:
    """Return the recipe of the base with one quantity changed."""
    values = BASE | ({name: at} if name in BASE else {})
    width, blocks = values["width"], ",".join(3 * [str(values["depth"])])
    spec = f"resnet:widths={width},{2 * width},{4 * width}:blocks_per_stage={blocks}"
    fixed = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]", f"data.image_size={values['image_size']}"]
    return load_recipe(spec, [*fixed, f"train.batch_size={values['batch_size']}"])


def prepare(name: str, at: int, scratch: Path) -> tuple[Steps, int]:
    """Return a call that trains so many steps, and the batch size."""
    recipe, count = recipe_at(name, at), at if name == "images" else BASE["images"]
    side, batch_size = recipe.network.image_size, recipe.train.batch_size
    file = pixels(scratch / f"{count}-{side}.npy", count, side)
    images = file if name == "images" else torch.from_numpy(np.array(file))
    labels = torch.arange(count) % 10
    state, step = make_state(recipe, 0, CPU), make_step(recipe, count // batch_size, CPU)
    state.model.train()
    batches = endless(images, count, batch_size)

    def steps(number: int) -> None:
        for index, batch in itertools.islice(batches, number):
            step(state, batch, labels[index], index, 0)

    return steps, batch_size


def endless(
    images: torch.Tensor | np.ndarray, count: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches as resfit's loop gets them, epoch after epoch."""
    for epoch in itertools.count():
        yield from feed(images, epoch_order(0, epoch, count), batch_size, 0, count // batch_size, CPU)


def pixels(file: Path, count: int, side: int) -> np.ndarray:
    """Return a memory-mapped array of random images uint8 (count, 3, side, side), written where it is not there yet."""
    shape = (count, 3, side, side)
    if not file.exists():
        made = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
        generator = np.random.default_rng(0)
        for start in range(0, count, 10_000):
            made[start : start + 10_000] = generator.integers(0, 256, made[start : start + 10_000].shape, np.uint8)
        made.flush()
    return np.lib.format.open_memmap(file, "r")  # as the cache is


def timed(steps: Steps, batch_size: int, seconds: float) -> float:
    """Return images a second over whole steps that take about `seconds`."""
    done, number, started = 0, 1, time.perf_counter()
    while True:
        steps(number)
        done += number
        taken = time.perf_counter() - started
        if taken >= seconds:
            return done * batch_size / taken
        number = max(1, int((seconds - taken) / (taken / done)))


if __name__ == "__main__":
    main()
