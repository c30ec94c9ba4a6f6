"""What checkpoints cost: saving one as a share of the default interval, and the seconds from `resfit resume` to its first step.

Usage: python benchmarks/checkpoint_cost.py [--network r1-4] [--repeats 9] [--out results]
The share is that of one saving (state with momentum and average, to the disk of the temporary folder) in the seconds between
two; the start is measured to the line that says where the run continues, beside importing torch and opening the data cache.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from resfit.recipe import Recipe
from resfit.recipefile import load_recipe
from resfit.runs import Run
from resfit.training import loop
from resfit.training.checkpoint import save_checkpoint
from resfit.training.init import make_state
from resfit.training.state import state_tensors
from result import keep, show

IMAGES = 40  # to train on; what is measured does not grow with them
SHARE, SECONDS = 0.02, 2.0  # goals
OPEN = "import sys, torch; from resfit.data.images import PixelRule; from resfit.data.sources import load_splits; "
OPEN += "load_splits(sys.argv[1], ('train', 'val'), PixelRule(32), 0.1)"


def saving(recipe: Recipe, folder: Path, repeats: int) -> list[float]:
    """Return the share of the default interval that each of some savings takes."""
    state = make_state(recipe, 0, torch.device("cpu"))
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()  # its state is there from the first step on
    found = []
    for step in range(repeats + 1):
        started = time.perf_counter()
        save_checkpoint(folder, step, state_tensors(state), {"step": step})
        found.append((time.perf_counter() - started) / loop.SAVE_SECONDS)
    return found[1:]


def starting(recipe: str, folder: Path, repeats: int) -> tuple[list[float], list[float]]:
    """Return the seconds to the line of a resumed run that says where it continues, and those of what it stands beside."""
    data, out = folder / "images.npz", folder / "run"
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    np.savez(data, images=images, labels=np.arange(IMAGES) % 2)
    short = ["--set", "train.epochs=2", "--set", "schedule.warmup_epochs=0", "--set", "train.batch_size=8"]
    resfit = [sys.executable, "-m", "resfit"]
    subprocess.run([*resfit, "train", recipe, "--data", data, *short, "--out", out], check=True, capture_output=True)
    values, peer = [], []
    for _ in range(repeats):
        Run(out).update(status="running")
        values.append(until_it_continues([*resfit, "resume", str(out)]))
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", OPEN, str(data)], check=True)
        peer.append(time.perf_counter() - started)
    return values, peer


def until_it_continues(command: list[str]) -> float:
    """Return the seconds from the start of a command to the line of a run that continues; the process is then ended."""
    started = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        said = next((line for line in process.stderr if "continues at step" in line), None)
        seconds = time.perf_counter() - started
        process.kill()
    if said is None:
        raise RuntimeError("the run does not continue")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="r1-4", help="a recipe of about 5M parameters")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="a folder to write the results to")
    a = parser.parse_args()
    recipe = load_recipe(a.network, ["train.ema_decay=0.99"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        name = f"share of training that checkpoints take at the default interval, {a.network} with an average, CPU"
        value = show(name, saving(recipe, folder / "saved", a.repeats), SHARE, digits=5, goal_is="value at most")
        keep(a.out, "checkpoint_cost", value)
        ours, peer = starting(a.network, folder, a.repeats)
    more = [mine - other for mine, other in zip(ours, peer, strict=True)]
    name = f"seconds that resume takes to continue, {a.network}, above importing torch and opening the cache"
    value = show(name, more, SECONDS, digits=3, goal_is="value at most", whole=round(float(np.median(ours)), 3))
    keep(a.out, "resume_start", value)


if __name__ == "__main__":
    main()
