"""Accuracy after 10 and after 30 minutes on two CPU cores: resfit, airbench94 on the CPU, and a report's recipe; prints JSON.

    python benchmarks/cpu_accuracy.py --minutes 30 --data DATA --airbench CHECKOUT/airbench94_muon.py --work DIR

Each side is trained on train + val and tested once; what DIR holds of an earlier call is taken as it is, so that the three may
be trained one after the other, with one thread beside other work (--train-threads 1) or with both. Their time is not that of
these trainings: it is the number of steps times the median seconds of a step with both threads, measured at the end in
alternation, each side alone on the machine while the others are stopped. train_seconds, as it was, stands beside it. --steps
takes them from the result of the other call instead: its recipes make the same steps, but more or fewer.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from operator import mul
from pathlib import Path
from typing import Any

import torch

import resfit
from resfit.data.sources import load_split
from resfit.machine import default_threads, tune
from resfit.recipe import Recipe
from resfit.recipefile import load_recipe
from resfit.runs import open_run
from resfit.training.init import make_state
from resfit.training.loop import batch_plan
from resfit.training.schedule import total_steps
from resfit.training.step import make_step
from result import show

RECIPES = {10: "speed-cpu-10", 30: "speed-cpu"}
REPORT = "r5"  # the fastest of the reports' final networks on two cores (cpu_train.py): an epoch takes ten minutes
GOALS = {10: 0.0, 30: 0.91}  # and higher than both peers
EPOCHS = {10: (2.3, 1), 30: (8, 3)}  # of airbench and of the report: what the time allows, or a little more
CPU = torch.device("cpu")


def main() -> None:
    a = arguments()
    a.work.mkdir(parents=True, exist_ok=True)
    sides = {
        "ours": load_recipe(RECIPES[a.minutes]),
        "report": load_recipe(REPORT, [f"train.epochs={a.report_epochs}"]),
    }
    folders = {"ours": a.work / sides["ours"].name, "report": a.work / f"{REPORT}-{a.report_epochs}"}
    receipts = {name: trained(recipe, folders[name], a) for name, recipe in sides.items()}
    peer = airbench(a, a.work / f"airbench-{a.airbench_epochs:g}.json")
    found = step_seconds(sides, a) if a.steps is None else json.loads(a.steps.read_text())
    steps = {name: [float(count) for _, count in phases(recipe, 50_000)] for name, recipe in sides.items()}
    steps["airbench"] = [50_000 // 2000 * peer["epochs"]]
    times = {name: sum(map(mul, counts, found["step_seconds"][name])) for name, counts in steps.items()}
    report(a, sides, receipts, peer, times, found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, choices=RECIPES, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--airbench", type=Path, required=True)
    parser.add_argument("--airbench-epochs", type=float)
    parser.add_argument("--report-epochs", type=int)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--train-threads", type=int, default=default_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=Path, metavar="RESULT", help="take the seconds of a step from this result")
    a = parser.parse_args()
    a.airbench_epochs = a.airbench_epochs or EPOCHS[a.minutes][0]
    a.report_epochs = a.report_epochs or EPOCHS[a.minutes][1]
    return a


def trained(recipe: Recipe, folder: Path, a: argparse.Namespace) -> dict[str, Any]:
    """Train on train + val and test once, in a process of its own; return receipt and summary."""
    if not (folder / "summary.json").exists():
        settings = [f"--set=train.epochs={recipe.train.epochs}", "--refit", "--device=cpu"]
        words = ["train", recipe.name, f"--data={a.data}", f"--out={folder}", *settings]
        begun = (folder / "run.json").exists()
        environment = os.environ | {"OMP_NUM_THREADS": str(a.train_threads)}
        words = ["resume", str(folder)] if begun else words
        subprocess.run([sys.executable, "-m", "resfit", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    resfit.test(folder, a.data, "cpu")
    run = open_run(folder)
    return {**json.loads(run.receipt_file.read_text()), "summary": run.summary, "info": run.info}


def airbench(a: argparse.Namespace, file: Path) -> dict[str, Any]:
    if not file.exists():
        done = subprocess.run(peer_words(a, a.train_threads), check=True, stdout=subprocess.PIPE, text=True)
        file.write_text(done.stdout.splitlines()[-1])
    found: dict[str, Any] = json.loads(file.read_text())
    return found | {name: round(found[name], 4) for name in ("accuracy", "accuracy_tta")}


def peer_words(a: argparse.Namespace, threads: int, *more: str) -> list[str]:
    script = str(Path(__file__).with_name("airbench_cpu.py"))
    words = [sys.executable, script, str(a.airbench), a.data, "--work", str(a.work), "--threads", str(threads)]
    return [*words, "--epochs", str(a.airbench_epochs), *more]


def step_seconds(sides: dict[str, Recipe], a: argparse.Namespace) -> dict[str, Any]:
    """Return the median seconds of a step with all threads, sides in alternation, by side and size of its images, and n."""
    tune(default_threads())
    log = a.work / "steps.log"
    log.unlink(missing_ok=True)
    steppers = {name: stepper(recipe, a.data) for name, recipe in sides.items()}
    found: dict[str, list[list[float]]] = {name: [[] for _ in phases(recipe, 50_000)] for name, recipe in sides.items()}
    found["airbench"] = [[]]
    errors = (a.work / "steps.err").open("w")
    process = subprocess.Popen(
        peer_words(a, default_threads(), "--steps", str(log)), stdout=subprocess.DEVNULL, stderr=errors
    )

    def wait(lines: int) -> None:
        while not (log.exists() and len(clocks(log)) >= lines):
            if process.poll() is not None:
                sys.exit(f"airbench ended with exit code {process.returncode}: see {errors.name}")
            time.sleep(0.5)

    try:
        wait(2)
        for _ in range(a.repeats):
            process.send_signal(signal.SIGSTOP)
            for name, call in steppers.items():
                for phase, times in enumerate(found[name]):
                    times.extend(call(phase))
            process.send_signal(signal.SIGCONT)
            begun = len(clocks(log))
            wait(begun + 4)  # the step that was stopped, then whole ones
            found["airbench"][0].extend(after - before for before, after in pairwise(clocks(log)[begun:]))
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
    medians = {name: [round(statistics.median(some), 4) for some in values] for name, values in found.items()}
    return {"step_seconds": medians, "step_n": {name: [len(some) for some in values] for name, values in found.items()}}


def clocks(log: Path) -> list[float]:
    return [float(line) for line in log.read_text().split()]


def phases(recipe: Recipe, count: int) -> list[tuple[int, int]]:
    """Return (first step, steps) of each size that the images have in training."""
    total = total_steps(recipe.train.epochs, batch_plan(recipe, count)[1])
    bounds = [0, *(-(-round(share * total * 1e6) // 10**6) for share in recipe.resizing.until), total]
    return [(start, stop - start) for start, stop in pairwise(bounds)]


def stepper(recipe: Recipe, data: str) -> Any:
    """Return a call that makes three steps at the size of a phase and returns the seconds of the last two."""
    images = load_split(data, "train", resfit.data.images.PixelRule(32))
    some = torch.from_numpy(images.images[: recipe.train.batch_size].copy())
    assert images.labels is not None
    labels = torch.from_numpy(images.labels[: len(some)].copy())
    if recipe.data.mean is None:
        recipe = load_recipe(recipe.name, ["data.mean=[0.49,0.48,0.45]", "data.std=[0.25,0.24,0.26]"])
    steps = batch_plan(recipe, 50_000)[1]
    state, step = make_state(recipe, 0, CPU, images), make_step(recipe, steps, CPU)
    state.model.train()
    index = torch.arange(len(some))

    def call(phase: int) -> list[float]:
        taken = []
        for number in range(3):
            state.step = phases(recipe, 50_000)[phase][0] + number
            started = time.perf_counter()
            step(state, some, labels, index, 0)
            taken.append(time.perf_counter() - started)
        return taken[1:]

    return call


def report(
    a: argparse.Namespace,
    sides: dict[str, Recipe],
    receipts: dict[str, dict[str, Any]],
    peer: dict[str, Any],
    times: dict[str, float],
    found: dict[str, Any],
) -> None:
    ours, theirs = receipts["ours"], receipts["report"]
    show(
        f"test accuracy after {a.minutes} minutes on 2 CPU cores",
        [ours["accuracy"]],
        round(max(GOALS[a.minutes], peer["accuracy_tta"], theirs["accuracy"]), 4),
        data="cifar10-jpeg",
        digits=4,
        peer=f"airbench94_muon on the CPU, {peer['epochs']} epochs, with its test-time augmentation",
        peer_values=[peer["accuracy_tta"]],
        seconds=round(times["ours"], 1),
        peer_seconds=round(times["airbench"], 1),
        seconds_are="steps times the median of a step with all threads, sides alternating",
        goal_seconds=60 * a.minutes,
        qualified=times["ours"] <= 60 * a.minutes,
        unless=f"took more than {a.minutes} minutes",
        recipe=sides["ours"].name,
        epochs=sides["ours"].train.epochs,
        interval=[round(bound, 4) for bound in ours["interval"]],
        test_images=ours["n"],
        train_images=50_000,
        tta_views=ours["tta_views"],
        tta_below=ours["tta_below"],
        opening=ours["opening"],
        params=ours["summary"]["params"],
        train_seconds=round(ours["summary"]["train_seconds"], 1),
        run_threads=ours["info"]["threads"],
        run_commit=ours["info"]["commit"],
        versions=ours["info"]["versions"],
        airbench=peer,
        report={
            "recipe": REPORT,
            "epochs": a.report_epochs,
            "accuracy": theirs["accuracy"],
            "seconds": round(times["report"], 1),
            "train_seconds": round(theirs["summary"]["train_seconds"], 1),
        },
        step_seconds=found["step_seconds"],
        step_n=found["step_n"],
        steps_measured_in=a.steps.name if a.steps else "this run",
    )


if __name__ == "__main__":
    main()
