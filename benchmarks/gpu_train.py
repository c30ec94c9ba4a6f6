"""How fast a recipe trains on a GPU, beside the reports' plain loop and one like timm's; prints three JSON objects.

    python benchmarks/gpu_train.py DATA [--recipe r1-4] [--steps 400] [--repeats 5] [--device cuda]

Images a second of the first steps of the recipe's whole schedule, in alternation in one process: the step of
resfit.training.step in four forms (as it is, `train.compile`, `train.cuda_graphs`, both; the fastest counts), the plain loop
(DataLoader with 2 workers, crop and flip with Pillow image by image, NCHW float32, a loss read each step) and timm's way
(DataLoader with the same transforms and a worker a core, uint8 in pinned memory, normalised on the card a batch ahead, channels
last, bfloat16, torch.compile). The same network, batch and optimizer; compiling and the first batches are not counted. The
share is 6 x macs x images/s over the rate of a bfloat16 matrix product timed in the same alternation; macs unpadded.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, RandomSampler

from resfit.data.batches import epoch_order
from resfit.data.images import ImageSet, PixelRule
from resfit.data.sources import load_split
from resfit.machine import commit, default_threads, describe, tune
from resfit.models.families import build, cost
from resfit.recipe import Recipe
from resfit.recipefile import load_recipe
from resfit.training.compiled import compile_forward
from resfit.training.init import make_state
from resfit.training.loop import batch_plan
from resfit.training.precision import fix_precision
from resfit.training.resolve import resolve
from resfit.training.step import make_step
from result import show

GOALS = {"plain loop": 20.0, "timm": 2.0}
GOAL_SHARE = 0.4
FORMS = {
    "as it is": (False, False),
    "compile": (True, False),
    "cuda graphs": (False, True),
    "compile, cuda graphs": (True, True),
}
WARM = 10  # batches before the clock starts

Runner = Callable[[int], float]  # steps -> images a second


def main() -> None:
    a = arguments()
    device = torch.device(a.device)
    tune(default_threads())
    images = load_split(a.data, "trainval", PixelRule(32))
    recipe = fix_precision(resolve(load_recipe(a.recipe), images), device)
    compile_seconds: dict[str, float] = {}
    sides = {f"resfit, {name}": ours(recipe, images, device, name, compile_seconds) for name in FORMS}
    sides["plain loop"] = plain_loop(recipe, images, device)
    sides["timm"] = timm_loop(recipe, images, device, a.workers)
    matrices: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(a.repeats):
        matrices.append(matrix_rate(device, a.matrix))
        for name, run in sides.items():
            rates[name].append(run(a.plain_steps if name == "plain loop" else a.steps))
    mine = [name for name in rates if name.startswith("resfit")]
    best = max(mine, key=lambda name: statistics.median(rates[name]))
    report(a, recipe, device, best, rates, matrices, compile_seconds)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--recipe", default="r1-4")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--plain-steps", type=int, default=100, help="of the plain loop, which is slow")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="of the timm-style loop")
    parser.add_argument("--matrix", type=int, default=8192, help="side of the matrices")
    return parser.parse_args()


def ours(recipe: Recipe, data: ImageSet, device: torch.device, form: str, seconds: dict[str, float]) -> Runner:
    """Return resfit's loop in one of FORMS, warmed up; what compiling took goes to `seconds`."""
    compiled, graphs = FORMS[form]
    changed = recipe.train.model_copy(update={"compile": compiled, "cuda_graphs": graphs})
    recipe = recipe.model_copy(update={"train": changed})
    images = torch.from_numpy(np.array(data.images)).to(device)
    labels = torch.from_numpy(np.array(data.labels)).to(device)
    batch_size, steps_per_epoch = batch_plan(recipe, len(data))
    state = make_state(recipe, 0, device, data)
    state.model.train()
    forward, seconds[form] = compile_forward(recipe, state.model, batch_size)
    step = make_step(recipe, steps_per_epoch, device, None, forward)

    def run(steps: int) -> float:
        started = count = 0.0
        for number in range(steps + WARM):
            if state.step % steps_per_epoch == 0:
                order = epoch_order(0, state.step // steps_per_epoch, len(data)).to(device)
                orders[:] = torch.split(order, batch_size)
            index = orders[state.step % steps_per_epoch]
            step(state, images[index], labels[index], index, 0)
            if number + 1 == WARM:
                synchronize(device)
                started = time.perf_counter()
            count += len(index) if number >= WARM else 0
        synchronize(device)
        return count / (time.perf_counter() - started)

    orders: list[Tensor] = []
    return run


class Files(Dataset[tuple[Any, int]]):
    """What ImageFolder with Pillow transforms gives, its images decoded already: crop from 4 pixels of zeros, flip."""

    def __init__(self, data: ImageSet, finish: Callable[[np.ndarray], Any]) -> None:
        assert data.labels is not None
        self.images = np.ascontiguousarray(np.asarray(data.images).transpose(0, 2, 3, 1))
        self.labels, self.finish = data.labels, finish

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        """Return the image, transformed, and its label."""
        image = ImageOps.expand(Image.fromarray(self.images[i]), 4)
        left, top, mirrored = (int(value) for value in torch.randint(0, 9, (3,)))
        image = image.crop((left, top, left + 32, top + 32))
        return self.finish(np.asarray(ImageOps.mirror(image) if mirrored % 2 else image)), int(self.labels[i])


def loader(recipe: Recipe, files: Files, steps: int, workers: int, pinned: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Return an iterator over so many whole batches."""
    sampler = RandomSampler(files, replacement=True, num_samples=steps * recipe.train.batch_size)
    return iter(DataLoader(files, recipe.train.batch_size, sampler=sampler, num_workers=workers, pin_memory=pinned))


class Normalize:
    """From uint8 (H, W, C) to float32 (C, H, W), as torchvision's ToTensor and Normalize; picklable for workers."""

    def __init__(self, recipe: Recipe) -> None:
        self.mean, self.std = (torch.tensor(value).view(3, 1, 1) for value in (recipe.data.mean, recipe.data.std))

    def __call__(self, image: np.ndarray) -> Tensor:
        """Return the image normalised."""
        return (torch.from_numpy(image.copy()).permute(2, 0, 1).contiguous().float().div(255) - self.mean) / self.std


def channels_first(image: np.ndarray) -> Tensor:
    """Return uint8 (C, H, W), as timm's loader collates it."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def plain_loop(recipe: Recipe, data: ImageSet, device: torch.device) -> Runner:
    """Return the reports' loop."""
    files, model = Files(data, Normalize(recipe)), build(recipe.network, 0).to(device).train()
    optimizer = plain_optimizer(recipe, model)

    def run(steps: int) -> float:
        batches = loader(recipe, files, steps + WARM, 2, False)
        started = total = 0.0
        for number, (images, labels) in enumerate(batches):
            inputs, targets = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = cross_entropy(model(inputs), targets)
            torch.autograd.backward(loss)
            optimizer.step()
            total += loss.item()
            if number + 1 == WARM:
                synchronize(device)
                started = time.perf_counter()
        synchronize(device)
        return steps * recipe.train.batch_size / (time.perf_counter() - started)

    return run


def timm_loop(recipe: Recipe, data: ImageSet, device: torch.device, workers: int) -> Runner:
    """Return the loop as timm 1.0's train.py has it with --amp --amp-dtype bfloat16 --channels-last --torchcompile."""
    files = Files(data, channels_first)
    model = build(recipe.network, 0).to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = plain_optimizer(recipe, model)
    forward: Callable[[Tensor], Tensor] = torch.compile(model)

    def run(steps: int) -> float:
        batches = ahead(loader(recipe, files, steps + WARM, workers, device.type == "cuda"), recipe, device)
        started = 0.0
        for number, (inputs, targets) in enumerate(batches):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):  # a CPU may take minutes
                loss = cross_entropy(forward(inputs.contiguous(memory_format=torch.channels_last)), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            if number + 1 == WARM:
                synchronize(device)
                started = time.perf_counter()
        synchronize(device)
        return steps * recipe.train.batch_size / (time.perf_counter() - started)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(1)  # compiles
    return run


def ahead(
    batches: Iterator[tuple[Tensor, Tensor]], recipe: Recipe, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches normalised on the device, each copied there on a stream of its own while the one before is used."""
    mean, std = (
        255 * torch.tensor(value, device=device).view(1, 3, 1, 1) for value in (recipe.data.mean, recipe.data.std)
    )
    stream: torch.cuda.Stream | None = None
    if device.type == "cuda":
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    last = None
    for images, labels in batches:
        with torch.cuda.stream(stream):
            copied = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            following = copied[0].float().sub_(mean).div_(std), copied[1]
        if last is not None:
            yield last
        if stream is not None:
            torch.cuda.current_stream().wait_stream(stream)
        last = following
    if last is not None:
        yield last


def plain_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Return the recipe's optimizer as torch makes it by default."""
    optim = recipe.optim
    makes = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    make: Any = makes[optim.name]
    return make(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, **optim.params)  # type: ignore[no-any-return]


def matrix_rate(device: torch.device, side: int, products: int = 20) -> float:
    """Return FLOP/s of a bfloat16 product of two square matrices of random numbers."""
    left, right = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    for _ in range(3):
        left @ right
    synchronize(device)
    started = time.perf_counter()
    for _ in range(products):
        left @ right
    synchronize(device)
    return products * 2 * side**3 / (time.perf_counter() - started)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def report(
    a: argparse.Namespace,
    recipe: Recipe,
    device: torch.device,
    best: str,
    rates: dict[str, list[float]],
    matrices: list[float],
    compile_seconds: dict[str, float],
) -> None:
    """Print the ratios to both peers and the share of the matrix rate."""
    more: dict[str, Any] = {
        "data": "cifar10-jpeg",
        "device": describe(device),
        "commit": commit(),
        "torch": torch.__version__,
    }
    more |= {"recipe": recipe.name, "batch_size": recipe.train.batch_size, "steps": a.steps, "form": best}
    more |= {"precision": recipe.train.precision}
    more |= {"medians": {name: round(statistics.median(values)) for name, values in rates.items()}}
    more |= {"compile_seconds": {name: round(value, 1) for name, value in compile_seconds.items()}}
    peers = {"plain loop": "the reports' loop: DataLoader, 2 workers, Pillow transforms, NCHW float32"}
    dtype = "bfloat16" if device.type == "cuda" else "float32"
    peers["timm"] = f"timm-style: {a.workers} workers, {dtype}, channels last, torch.compile, a batch ahead"
    for name, peer in peers.items():
        figure = f"GPU training images/s, {recipe.name}, against {name}"
        show(figure, rates[best], GOALS[name], goal_is="ratio at least", peer=peer, peer_values=rates[name], **more)
    macs = cost(recipe.network).macs
    shares = [6 * macs * rate / peak for rate, peak in zip(rates[best], matrices, strict=True)]
    show(
        f"GPU training of {recipe.name}, share of the bfloat16 matrix rate",
        shares,
        GOAL_SHARE,
        digits=3,
        macs=macs,
        matrix_tflops=round(statistics.median(matrices) / 1e12, 1),
        matrix_side=a.matrix,
        **more,
    )


if __name__ == "__main__":
    main()
