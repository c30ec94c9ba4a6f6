"""Seconds to an airbench script's accuracy, ours and the script in alternation on one card; prints three JSON objects.

    python benchmarks/gpu_speed.py DATA --peer .carry/airbench/airbench94_muon.py --recipe speed-94 --n 100 [--minutes 9]

Both train on train + val (50,000 images of cifar10-jpeg), a process each, a trial of one and then of the other, the first of
either not counted; both keep the images on the card. Ours is a whole run of the recipe as `resfit train --refit` does it, seed
= trial. Seconds: training steps, the whitening of the first layer, and the prediction of the test images with test-time
augmentation, as the script counts its own; compiling, reading, writing and intermediate evaluations are not in them.
Each accuracy is of the test split, which feeds no choice here; one opening of it a call is noted in the ledger.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from airbench import write_images
from resfit.data.images import ImageSet, PixelRule
from resfit.data.sources import load_split
from resfit.evaluation.bundle import load_bundle
from resfit.evaluation.holdout import note_opening
from resfit.evaluation.metrics import accuracy, mean_interval
from resfit.evaluation.predict import predict_logits
from resfit.machine import commit, describe
from resfit.models.families import build
from resfit.recipe import Recipe
from resfit.recipefile import load_recipe
from resfit.training.init import fit_to
from resfit.training.launch import start
from result import show

GOALS = {"airbench94_muon": 0.8, "airbench95": 0.5, "airbench96_faster": 1.0}
Trial = dict[str, float]


def main() -> None:
    a = arguments()
    began, device = time.monotonic(), torch.device(a.device)
    recipe = load_recipe(a.recipe, a.set)
    train, test = (load_split(a.data, split, PixelRule(32)) for split in ("trainval", "test"))
    if a.images:  # to try the script
        train, test = (split.take(np.arange(0, len(split), len(split) // a.images)) for split in (train, test))
    note_opening(test.fingerprint, Path(a.peer))
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch), train, test)
        with contextlib.ExitStack() as stack:
            peer = start_peer(a, Path(scratch), stack)
            set_up = answer(peer, Path(scratch))["set_up_seconds"]
            ours: list[Trial] = []
            theirs: list[Trial] = []
            for number in range(-1, a.n):  # the first of each warms up
                if number > 0 and time.monotonic() - began > 60 * a.minutes:
                    break
                assert peer.stdin is not None
                peer.stdin.write(f"{'warmup' if number < 0 else number}\n")
                peer.stdin.flush()
                theirs.append(answer(peer, Path(scratch)))
                ours.append(our_trial(recipe, train, test, Path(scratch) / f"run{number}", max(number, 0), device))
    report(a, recipe, device, ours, theirs, set_up, len(train))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--peer", required=True, type=Path, help="airbench's script")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--n", type=int, default=100, help="trials of each")
    parser.add_argument("--minutes", type=float, default=9.0, help="no trial begins after so many")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--images", type=int, help="take so few, to try the script")
    parser.add_argument(
        "--peer-epochs", type=int, help="run the peer without CUDA, for so many epochs, to try the script"
    )
    return parser.parse_args()


def start_peer(a: argparse.Namespace, folder: Path, stack: contextlib.ExitStack) -> "subprocess.Popen[str]":
    """Start the script's process in `folder`; what it prints goes to peer.log beside."""
    words = [sys.executable, str(Path(__file__).with_name("peer_airbench.py")), str(a.peer.resolve())]
    words += [] if a.peer_epochs is None else ["--epochs", str(a.peer_epochs)]
    log = stack.enter_context((folder / "peer.log").open("w"))
    pipe = subprocess.PIPE
    process = stack.enter_context(subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=log, text=True, cwd=folder))
    stack.callback(process.terminate)  # before the exit above waits for it
    return process


def answer(peer: "subprocess.Popen[str]", folder: Path) -> Trial:
    """Return what the script's process says next; where it has died, show how and exit."""
    assert peer.stdout is not None
    line = peer.stdout.readline()
    if not line:
        sys.exit("the peer died:\n" + (folder / "peer.log").read_text()[-2000:])
    found: Trial = json.loads(line)
    return found


def our_trial(recipe: Recipe, train: ImageSet, test: ImageSet, out: Path, seed: int, device: torch.device) -> Trial:
    """Train a run as `resfit train --refit` does and predict the test images with and without test-time augmentation."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        run = start(recipe, train, None, out, seed=seed, device=str(device))
    summary, bundle = run.summary, load_bundle(run.folder, str(device))
    images = torch.from_numpy(np.array(test.images)).to(device)
    found = {"compile_seconds": summary["compile_seconds"], "train_seconds": summary["train_seconds"]}
    found["fit_seconds"] = fit_seconds(run.recipe, train)
    assert test.labels is not None
    for key, tta in (("accuracy", "none"), ("accuracy_tta", recipe.tta)):
        started = time.perf_counter()
        logits = predict_logits(bundle.model, images, bundle.mean, bundle.std, tta, bundle.tta_below)
        found["tta_seconds"] = time.perf_counter() - started
        found[key] = accuracy(logits, test.labels)
    found["seconds"] = found["train_seconds"] + found["fit_seconds"] + found["tta_seconds"]
    return found


def fit_seconds(recipe: Recipe, train: ImageSet) -> float:
    """Return what the whitening of the first layer takes, which `make_state` does before the loop's clock starts."""
    model = build(recipe.network, 0)
    started = time.perf_counter()
    fit_to(model, recipe, train)
    return time.perf_counter() - started


def welch(left: Sequence[float], right: Sequence[float]) -> dict[str, float] | None:
    """Return t, degrees of freedom and one-sided p of the mean of `left` against that of `right`; None where n is 1.

    p_above: how likely a difference as high is where the means are the same (small: left's is above); p_below likewise.
    Welch 1947, "The generalization of Student's problem when several different population variances are involved".
    """
    if min(len(left), len(right)) < 2:
        return None
    parts = [statistics.variance(values) / len(values) for values in (left, right)]
    difference, spread = statistics.mean(left) - statistics.mean(right), sum(parts)
    if spread == 0:
        return None
    degrees = spread**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (left, right), strict=True))
    t = difference / math.sqrt(spread)
    above = student_above(t, degrees)
    return {"difference": difference, "t": t, "df": degrees, "p_above": above, "p_below": 1 - above}


def student_above(t: float, degrees: float) -> float:
    """Return the probability that Student's t exceeds `t`, by Simpson's rule over the angle whose tangent is t / sqrt(df)."""
    angle = math.atan(t / math.sqrt(degrees))
    angles = np.linspace(0, angle, 2001)
    weights = np.full(2001, 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    area = float((weights * np.cos(angles) ** (degrees - 1)).sum()) * angle / 2000 / 3
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    return 0.5 - scale * area


def report(
    a: argparse.Namespace,
    recipe: Recipe,
    device: torch.device,
    ours: list[Trial],
    theirs: list[Trial],
    set_up: float,
    images: int,
) -> None:
    """Print seconds and accuracies, each beside the peer's; the first trial of each side is the warm-up."""
    name = a.peer.stem
    mine, peers = ours[1:], theirs[1:]
    more: dict[str, Any] = {
        "data": "cifar10-jpeg",
        "device": describe(device),
        "commit": commit(),
        "torch": torch.__version__,
    }
    more |= {"recipe": recipe.name, "peer": f"airbench's {name}", "train_images": images, "wanted_n": a.n}
    more |= {"tta": recipe.tta, "tta_below": recipe.tta_below}

    def column(trials: list[Trial], key: str) -> list[float]:
        return [trial[key] for trial in trials]

    parts = {key: statistics.median(column(mine, key)) for key in ("train_seconds", "fit_seconds", "tta_seconds")}
    parts |= {"compile_seconds": ours[0]["compile_seconds"], "compile_seconds_warm": mine[-1]["compile_seconds"]}
    seconds: dict[str, Any] = {"peer_values": column(peers, "seconds"), "goal_is": "ratio at most", **more}
    seconds |= {key: round(value, 4) for key, value in parts.items()} | {"peer_set_up_seconds": round(set_up, 1)}
    means = [statistics.mean(column(trials, "accuracy_tta")) for trials in (mine, peers)]
    seconds |= {"qualified": means[0] >= means[1], "unless": "less accurate than the peer"}
    figure = f"seconds of training and prediction, {recipe.name}, beside {name}"
    show(figure, column(mine, "seconds"), GOALS.get(name), digits=4, **seconds)
    for key, what in (("accuracy_tta", f"with test-time augmentation, {recipe.tta}"), ("accuracy", "without")):
        left, right = column(mine, key), column(peers, key)
        tests: dict[str, Any] = {"accuracy_of": mean_interval(left), "peer_accuracy_of": mean_interval(right), **more}
        tests |= {"welch": welch(left, right), "peer_values": right, "goal_is": "mean at least the peer's"}
        figure = f"test accuracy of {recipe.name} beside {name}, {what}"
        show(figure, left, statistics.mean(right), digits=4, **tests)


if __name__ == "__main__":
    main()
