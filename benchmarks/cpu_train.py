"""CPU training images/s of resfit beside the plain loop that the reports use, in alternation; prints a JSON object a figure.

Usage: python benchmarks/cpu_train.py FOLDER [--networks r1-4 ...] [--steps 2] [--repeats 5] [--threads 2] [--out results]
Same network, batch and precision (float32), each by its own recipe. Each side is a process of its own that lives through all of
it and trains `--steps` batches when asked (0: about five seconds' worth): so both are warm, one waits while the
other works, and the peer's allocator is the system's. resfit's is its own step (order, augmentation and update) on resident
images; the peer is benchmarks/plain_loop.py, with 0 or 2 loader workers, whichever a first round finds the faster. For r1-4 two
more processes run its convolutions alone, forward and backward, channels last, on resfit's allocator: as resfit computes
them, and as torch does. On two quiet cores: about 10 minutes for all four. FOLDER is cifar10-jpeg extracted.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resfit.machine import default_threads
from result import keep, show

NETWORKS = ("r1-4", "r4-lighter", "r5", "resnet-20")
STEPS = {"r1-4": 1, "r4-lighter": 2, "r5": 3, "resnet-20": 16}
GOAL, SHARE_GOAL = 1.5, 0.85
SETTLE = 0.5  # seconds in which the peer's loader fills its queue again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=default_threads())
    parser.add_argument("--batch-size", type=int, help="instead of the recipe's own: for a trial of this script only")
    parser.add_argument("--out", type=Path, help="also write each object to a file in this folder")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options)
        return
    ratios = {name: measure(name, options) for name in options.networks}
    if len(ratios) == len(NETWORKS):
        every = [math.prod(values) ** (1 / len(ratios)) for values in zip(*ratios.values(), strict=True)]
        keep(
            options.out,
            "cpu_train",
            show(
                "CPU training images/s over the plain loop's, geometric mean of " + ", ".join(ratios),
                every,
                GOAL,
                data="cifar10-jpeg",
                digits=3,
                goal_is="ratio at least",
                peer="the plain loop: NCHW, system's allocator, DataLoader with Pillow image by image",
                peer_value=1,
                ratio=round(statistics.median(every), 3),
                networks={name: round(statistics.median(values), 3) for name, values in ratios.items()},
                threads=options.threads,
            ),
        )


class Side:
    """A process that trains on request; see `serve`."""

    def __init__(self, side: str, network: str, options: argparse.Namespace) -> None:
        words = [sys.executable, __file__, str(options.folder), "--side", side, "--networks", network]
        words += ["--threads", str(options.threads)]
        words += ["--batch-size", str(options.batch_size)] if options.batch_size else []
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, steps: int) -> float:
        """Return images a second over `steps` batches."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "a side of the measurement died"
        time.sleep(SETTLE)
        found: float = json.loads(answer)
        return found

    def end(self) -> None:
        """Let the process end."""
        self.process.communicate("")


def measure(network: str, options: argparse.Namespace) -> list[float]:
    """Print the results of one network; return its ratio in each round."""
    steps = options.steps or STEPS[network]
    names = ["ours", "plain-0", "plain-2", *(["convolutions", "direct"] if network == "r1-4" else [])]
    sides = {name: Side(name, network, options) for name in names}
    first = {name: (side.rate(1), side.rate(steps))[1] for name, side in sides.items()}
    slower = min(("plain-0", "plain-2"), key=lambda name: first[name])
    sides.pop(slower).end()
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, side in sides.items():
            rates[name].append(side.rate(steps))
    for side in sides.values():
        side.end()
    peer = next(name for name in rates if name.startswith("plain"))
    workers = f"{peer[-1]} loader workers, faster than {slower[-1]} ({first[peer]:.1f} against {first[slower]:.1f})"
    common: dict[str, Any] = {"digits": 2, "goal_is": "ratio at least", "threads": options.threads, "steps": steps}
    value = show(
        f"CPU training images/s, {network}",
        rates["ours"],
        GOAL,
        data="cifar10-jpeg",
        peer=f"the plain loop: NCHW, system's allocator, DataLoader with Pillow image by image, {workers}",
        peer_values=rates[peer],
        **common,
    )
    keep(options.out, f"cpu_train_{network.replace('-', '_')}", value)
    if "convolutions" in rates:
        value = show(
            f"CPU training images/s, {network}, beside its convolutions alone",
            rates["ours"],
            SHARE_GOAL,
            data="cifar10-jpeg",
            peer="the same convolutions as resfit computes them, forward and backward, alone: same allocator, random pixels",
            peer_values=rates["convolutions"],
            direct_value=round(statistics.median(rates["direct"]), 2),
            direct="the same with torch's own convolutions",
            **common,
        )
        keep(options.out, f"cpu_convolutions_{network.replace('-', '_')}", value)
    return [ours / theirs for ours, theirs in zip(rates["ours"], rates[peer], strict=True)]


def serve(options: argparse.Namespace) -> None:
    """Train as many batches as each line of stdin says, and print the images a second of each request."""
    import torch

    from resfit.data.images import PixelRule
    from resfit.data.sources import load_split
    from resfit.machine import tune
    from resfit.recipefile import load_recipe
    from resfit.training.resolve import resolve

    (network,) = options.networks
    train_set = load_split(options.folder, "train", PixelRule(32))
    assert train_set.labels is not None
    settings = [f"train.batch_size={options.batch_size}"] if options.batch_size else []
    recipe = resolve(load_recipe(network, settings), train_set)
    step: Callable[[], None]
    if options.side.startswith("plain"):
        from plain_loop import make_plain

        torch.set_num_threads(options.threads)
        step = make_plain(recipe, train_set.images[:], train_set.labels, int(options.side[-1]))
    else:
        tune(options.threads)
        ours = options.side == "ours"
        step = make_ours(recipe, train_set) if ours else make_convolutions(recipe, options.side == "direct")
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(int(line) * recipe.train.batch_size / (time.perf_counter() - started), flush=True)


def make_ours(recipe: Any, train_set: Any) -> Callable[[], None]:
    """Return a call that trains one more batch as resfit's loop does, without its checkpoints and its evaluation."""
    import numpy as np
    import torch

    from resfit.data.batches import epoch_order
    from resfit.training.init import make_state
    from resfit.training.step import make_step

    cpu, size = torch.device("cpu"), recipe.train.batch_size
    images, labels = torch.from_numpy(np.array(train_set.images[:])), torch.from_numpy(np.array(train_set.labels))
    per_epoch = len(images) // size
    state, step = make_state(recipe, 0, cpu), make_step(recipe, per_epoch, cpu)
    state.model.train()
    order = epoch_order(0, 0, len(images))

    def train() -> None:
        nonlocal order
        place = state.step % per_epoch
        if place == 0:
            state.epoch = state.step // per_epoch
            order = epoch_order(0, state.epoch, len(images))
        index = order[place * size : (place + 1) * size]
        step(state, images[index], labels[index], index, 0)

    return train


def make_convolutions(recipe: Any, direct: bool) -> Callable[[], None]:
    """Return a call that runs every convolution of a step forward and backward, on pixels and gradients of its shapes.

    As in a step, no gradient is asked for the images. Convolutions of one shape share their tensors. `direct`: torch's own
    convolution for all, else the module's.
    """
    import torch
    from torch import Tensor, nn
    from torch.nn import functional as F

    from resfit.models.families import build

    model = build(recipe.network, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shapes: list[tuple[nn.Conv2d, torch.Size, torch.Size]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output: shapes.append((module, inputs[0].shape[1:], output.shape[1:]))
        )
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    held: dict[tuple[torch.Size, bool], Tensor] = {}

    def random_images(shape: torch.Size, leaf: bool) -> Tensor:
        if (shape, leaf) not in held:
            made = torch.randn(recipe.train.batch_size, *shape).to(memory_format=torch.channels_last)
            held[shape, leaf] = made.requires_grad_(leaf and shape[0] > 3)
        return held[shape, leaf]

    places = [(conv, random_images(a, True), random_images(b, False)) for conv, a, b in shapes]

    def run() -> None:
        for conv, inputs, gradient in places:
            out = F.conv2d(inputs, conv.weight, None, conv.stride, conv.padding) if direct else conv(inputs)
            wanted = [t for t in (inputs, conv.weight) if t.requires_grad]
            torch.autograd.grad(out, wanted, gradient)

    return run


if __name__ == "__main__":
    main()
