"""Train a sample of networks under equal budgets, and fit the rules that `resfit design` ranks by.

    python benchmarks/design_runs.py DATA --work DIR [--count 36] [--workers 2]
    python benchmarks/design_runs.py DATA --work DIR --times
    python benchmarks/design_runs.py DATA --work DIR --fit

The networks are drawn from a seed: three families, one to four blocks a stage, rising widths, parameters within a tenth of
50,000, 100,000 or 200,000, images of 16 pixels. Each is trained once by the recipe `default`, shortened to one epoch or to
two, in a process with one thread, and scored on the validation split; what DIR holds of an earlier call is taken as it is.
`--times` measures a training step and an image alone, of these and of the named networks, with all threads, on a machine that
must be quiet. `--fit` writes results/design_runs.json and src/resfit/solver/expected.toml: least squares of -log(error), and of
the times' relative error. The rank correlation is the mean over the groups of runs of one budget and length; the rule's is of
runs foretold by a rule fitted on the others.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch

from resfit.data.images import PixelRule
from resfit.data.sources import load_splits
from resfit.machine import commit, default_threads, tune
from resfit.models.families import cost
from resfit.models.networks import network
from resfit.models.spec import ModelSpec, format_spec
from resfit.recipefile import load_recipe
from resfit.solver.answer import SCORES
from resfit.solver.latency import measure_latency
from resfit.solver.scores import score_network
from resfit.training.init import make_state
from resfit.training.launch import start
from resfit.training.step import make_step
from result import device, show

ROOT = Path(__file__).resolve().parents[1]
FAMILIES, BUDGETS, EPOCHS, SIZE = ("resnet", "wrn", "separable"), (50_000, 100_000, 200_000), (1, 2), 16
BATCH = 128
TERMS = ("params", "macs", "depth", "depth_squared", "images")
TIMES = ("training", "latency")
SEPARABLE = "separable:widths=144,288,576,848:blocks_per_stage=2,2,2,2:stem_width=64"  # r1-separable
NAMED = ("resnet-8", "resnet-20", "r4-lighter", "r5", "r3", SEPARABLE)  # timed too, at 32 pixels
Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=36)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--times", action="store_true", help="only measure times")
    parser.add_argument("--fit", action="store_true", help="only fit what has been trained and measured")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.fit:
        fit_all(read(a.work / "runs.jsonl"), read(a.work / "times.jsonl"))
    elif a.times:
        measure(a.work)
    else:
        train_all(a)


def read(file: Path) -> list[Run]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write(file: Path, run: Run) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(run) + "\n")


def sample(count: int) -> Iterator[tuple[ModelSpec, int, int]]:
    """Yield networks of each family, budget and length in turn, drawn from seed 0, no two alike: (spec, budget, epochs)."""
    draw = random.Random(0)
    found: set[ModelSpec] = set()
    while len(found) < count:
        number = len(found)
        budget, epochs = BUDGETS[number // 3 % 3], EPOCHS[number // 9 % 2]
        widths = sorted(draw.choice(range(8, 129, 4)) for _ in range(3))
        blocks = [draw.randint(1, 4) for _ in range(3)]
        spec = ModelSpec(FAMILIES[number % 3], tuple(widths), tuple(blocks), image_size=SIZE)
        if 0.9 * budget < cost(spec).params <= budget and spec not in found:
            found.add(spec)
            yield spec, budget, epochs


def train_all(a: argparse.Namespace) -> None:
    """Train what has not been trained, cheap ones first, several at a time."""
    os.environ["OMP_NUM_THREADS"] = "1"
    file = a.work / "runs.jsonl"
    done = {run["network"] for run in read(file)}
    left = [job for job in sample(a.count) if format_spec(job[0]) not in done]
    with ProcessPoolExecutor(a.workers, mp_context=get_context("spawn")) as pool:
        for job in as_completed([pool.submit(trained, *job, a.data, a.work) for job in left]):
            write(file, job.result())


def trained(spec: ModelSpec, budget: int, epochs: int, data: str, work: Path) -> Run:
    """Train a network; return what it cost and how good it is on val."""
    train_set, val_set = load_splits(data, ("train", "val"), PixelRule(SIZE))
    settings = [f"network={format_spec(spec)}", f"train.epochs={epochs}", f"train.validate_every={epochs}"]
    recipe = load_recipe("default", [*settings, "schedule.warmup_epochs=0.25"])
    with tempfile.TemporaryDirectory(dir=work) as folder:
        summary = start(recipe, train_set, val_set, Path(folder) / "run", device="cpu").summary
    return {
        **_costs(spec),
        "budget": budget,
        "epochs": epochs,
        "train_images": len(train_set),
        "val_accuracy": summary["val"]["accuracy"],
        **{name: float(f"{score:.6g}") for name, score in score_network(spec).items()},
        "commit": commit(),
    }


def measure(work: Path) -> None:
    """Time a training step and an image alone."""
    file = work / "times.jsonl"
    file.unlink(missing_ok=True)
    named = [network(name) for name in NAMED]
    for spec in [network(run["network"]) for run in read(work / "runs.jsonl")] + named:
        training = step_seconds(spec) / BATCH
        write(file, {**_costs(spec), "training": training, "latency": measure_latency(spec), "commit": commit()})


def step_seconds(spec: ModelSpec) -> float:
    """Return the median seconds of a training step."""
    timed = timed_step(spec)
    return statistics.median(timed() for _ in range(3))


def timed_step(spec: ModelSpec) -> Callable[[], float]:
    """Return what makes a training step and returns its seconds; a first step has been made."""
    tune(default_threads())
    settings = [f"network={format_spec(spec)}", "data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]"]
    recipe = load_recipe("default", settings)
    place = torch.device("cpu")
    state, step = make_state(recipe, 0, place), make_step(recipe, 1000, place)
    state.model.train()
    images = torch.randint(0, 256, (BATCH, spec.channels, spec.image_size, spec.image_size), dtype=torch.uint8)
    labels, index = torch.randint(0, spec.classes, (BATCH,)), torch.arange(BATCH)

    def timed() -> float:
        started = time.perf_counter()
        step(state, images, labels, index, 0)
        return time.perf_counter() - started

    timed()
    return timed


def _costs(spec: ModelSpec) -> Run:
    total, blocks = cost(spec), sum(spec.blocks_per_stage)
    counts = {"params": total.params, "macs": total.macs, "activations": total.activations}
    return {"network": format_spec(spec), "family": spec.family, **counts, "blocks": blocks}


def columns(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Return the rule's terms, one row a run."""
    depth = np.log2([run["blocks"] for run in runs])
    terms = {"params": np.log2([run["params"] for run in runs]), "macs": np.log2([run["macs"] for run in runs])}
    terms |= {"depth": depth, "depth_squared": depth**2}
    terms |= {"images": np.log2([run["epochs"] / max(EPOCHS) for run in runs])}
    return terms | {name: np.array([float(run["family"] == name) for run in runs]) for name in FAMILIES}


def fit(runs: Sequence[Run], leave_out: Sequence[str] = ()) -> dict[str, float]:
    """Return the rule's coefficients by least squares of -log(error); params and macs not below 0."""
    target = -np.log([1 - run["val_accuracy"] for run in runs])
    terms = {name: values for name, values in columns(runs).items() if name not in leave_out}
    found = solve(terms, target, [name for name in ("params", "macs") if name in terms])
    return {name: found.get(name, 0.0) for name in (*TERMS, *FAMILIES)}


def fit_times(rows: Sequence[Run], name: str) -> tuple[dict[str, int], float]:
    """Return femtoseconds a mac, an activation and a part, by least squares of the relative error, and the median of that."""
    taken = np.array([row[name] * 1e15 for row in rows])
    terms = {key: np.array([row[key] for row in rows]) / taken for key in ("macs", "activations")}
    terms["part"] = np.array([row["blocks"] + 2 for row in rows]) / taken
    found = solve(terms, np.ones(len(rows)), list(terms))
    modelled = sum(found.get(key, 0.0) * values for key, values in terms.items())
    return {key: round(found.get(key, 0.0)) for key in terms}, float(np.median(np.abs(modelled - 1)))


def solve(terms: dict[str, np.ndarray], target: np.ndarray, positive: Sequence[str]) -> dict[str, float]:
    """Return the coefficients of a least-squares fit, leaving out terms that would be negative and must not."""
    terms = dict(terms)
    while True:
        values, *_ = np.linalg.lstsq(np.stack([*terms.values()], axis=1), target, rcond=None)
        found = dict(zip(terms, map(float, values), strict=True))
        worst = min((name for name in positive if name in found), key=found.__getitem__, default=None)
        if worst is None or found[worst] >= 0:
            return found
        del terms[worst]


def foretold(runs: Sequence[Run], leave_out: Sequence[str] = ()) -> list[float]:
    """Return each run's score by a rule fitted on the others."""
    scores = []
    for number, run in enumerate(runs):
        rule = fit([*runs[:number], *runs[number + 1 :]], leave_out)
        scores.append(sum(rule[name] * float(values[0]) for name, values in columns([run]).items()))
    return scores


def agreement(scores: Sequence[float], runs: Sequence[Run]) -> float:
    """Return the mean rank correlation with accuracy over the runs of one budget and length."""
    groups = defaultdict(list)
    for score, run in zip(scores, runs, strict=True):
        groups[run["budget"], run["epochs"]].append((score, run["val_accuracy"]))
    return statistics.mean(spearman(*zip(*pairs, strict=True)) for pairs in groups.values())


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the correlation of the ranks (Spearman 1904); of equals the mean rank."""
    a, b = (np.array([np.mean(np.flatnonzero(np.sort(some) == value)) for value in some]) for some in (left, right))
    return float(np.corrcoef(a, b)[0, 1])


def fit_all(runs: list[Run], times: list[Run]) -> None:
    """Write the result and the rules."""
    agrees = {name: agreement([run[name] for run in runs], runs) for name in ("params", "macs", *SCORES)}
    rule, by_rule = fit(runs), agreement(foretold(runs), runs)
    simple = max(("params", "macs"), key=agrees.__getitem__)
    if by_rule <= agrees[simple]:  # then the count ranks: only it, the images seen and the level are fitted
        rule = fit(runs, [name for name in TERMS[:4] if name != simple])
        rule |= dict.fromkeys(FAMILIES, statistics.mean(rule[name] for name in FAMILIES))
    agrees = {"rule": by_rule} | agrees
    fitted = {name: fit_times(times, name) for name in TIMES}
    data = f"cifar10-jpeg, {runs[0]['train_images']:,} images of {SIZE} pixels, {' or '.join(map(str, EPOCHS))} epochs"
    value = show(
        "rank correlation of the rule of expected accuracy with held-out runs of one budget",
        [by_rule],
        round(agrees["params"], 3),
        data=data,
        digits=3,
        peer="ranking by parameters",
        peer_values=[agrees["params"]],
        rank_correlation={name: round(number, 3) for name, number in agrees.items()},
        rule=rule,
        times={name: {**found, "median_relative_error": round(error, 3)} for name, (found, error) in fitted.items()},
        timed=times,
        runs=runs,
    )
    value["n"] = len(runs)
    (ROOT / "results" / "design_runs.json").write_text(json.dumps(value, indent=2) + "\n")
    source = {"n": len(runs), "data": data, "device": device(), "commit": value["commit"]}
    source |= {"rank_correlation": value["rank_correlation"], "made_by": "benchmarks/design_runs.py --fit"}
    shipped = {name: round(rule[name], 5) for name in TERMS} | {
        "families": {name: round(rule[name], 5) for name in FAMILIES}
    }
    shipped |= {name: found for name, (found, _) in fitted.items()} | {"source": source}
    (ROOT / "src" / "resfit" / "solver" / "expected.toml").write_text(tomli_w.dumps(shipped))


if __name__ == "__main__":
    main()
