"""Run a checkout's airbench94_muon.py as it is, on the CPU, and print its accuracy and seconds as JSON; see cpu_accuracy.py.

Usage: python benchmarks/airbench_cpu.py PATH/airbench94_muon.py DATA --work DIR --epochs 8 --threads 2 --steps LOG. What it
asks of CUDA and torchvision is answered here: half is float32, events read the clock, Normalize is ours; Newton-Schulz stays in
float32, which a CPU does faster than bfloat16. LOG gets a line a step: the clock after it.
"""

import argparse
import json
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import torch

from airbench import without_cuda, write_images
from resfit.data.images import PixelRule
from resfit.data.sources import load_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True, help="a folder of its own for the images as it reads them")
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=Path, help="where each step's clock is written")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    script, steps = a.script.resolve(), a.steps.open("w", buffering=1) if a.steps else None
    if not (a.work / "cifar10" / "test.pt").exists():
        write_images(a.work, *(load_split(a.data, split, PixelRule(32)) for split in ("trainval", "test")))
    os.chdir(a.work)
    peer = load(script, a.epochs)
    spent = [0.0]
    muon, evaluate = peer.Muon.step, peer.evaluate

    def step(self: Any) -> None:
        muon(self)
        if steps:
            steps.write(f"{time.monotonic()}\n")

    def timed(*words: Any, **more: Any) -> float:
        started = time.perf_counter()
        accuracy: float = evaluate(*words, **more)
        spent[0] += time.perf_counter() - started
        accuracies[more["tta_level"]] = accuracy
        return accuracy

    accuracies: dict[int, float] = {}
    peer.Muon.step, peer.evaluate = step, timed
    model = peer.CifarNet().to(memory_format=torch.channels_last)
    started = time.perf_counter()
    peer.main(0, model)
    seconds = time.perf_counter() - started - spent[0]
    params = sum(p.numel() for p in model.parameters())
    value = {"accuracy": accuracies[0], "accuracy_tta": accuracies[2], "epochs": a.epochs, "train_seconds": seconds}
    print(json.dumps(value | {"threads": a.threads, "seed": a.seed, "params": params}))


def load(script: Path, epochs: int) -> Any:
    """Return the script as a module, its number of epochs changed, on a torch that answers for CUDA."""
    without_cuda()
    text = script.read_text()
    changes = {"ceil(8 *": f"ceil({epochs} *", "G.bfloat16()": "G.clone()"}
    for old, new in changes.items():
        if text.count(old) != 1:
            raise SystemExit(f"{script}: has {old!r} {text.count(old)} times, not once. Is it airbench94_muon.py?")
        text = text.replace(old, new)
    made = types.ModuleType("airbench")
    sys.argv = [str(script)]
    exec(compile(text, str(script), "exec"), made.__dict__)
    return made


if __name__ == "__main__":
    main()
