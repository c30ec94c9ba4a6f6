"""The network that `design` picks beside what else one would take, under one budget of training; prints JSON.

    python benchmarks/design_compare.py DATA --equal seconds|images --work DIR [--budget 180] [--seeds 3]

Networks of at most 100,000 parameters at 16 pixels, trained by `default` on the training split with two threads, scored on
val. The sides: `design` (its first network for equal images, the highest of "equal time" for equal seconds); the reports' final
shapes, widths scaled until the parameters fit, each by itself; random search, which spends half the budget on eight networks
of the space that keep it, and the other half on the best of them, trained anew; and Optuna without the closed-form filter, the
same with TPE over the same space, where a network over the limit is trained like any other and then of no use. --budget is in
thousands of images, or in seconds of a quiet machine: a side's images then follow from its step beside that of `design`'s
network, both in alternation, and from the latter's alone (--reference, or measured at the start), so that what else the
machine does shifts no side. What DIR holds is kept.
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from design_runs import BATCH, step_seconds, timed_step
from resfit.budget import Budget
from resfit.data.images import PixelRule
from resfit.data.sources import load_splits
from resfit.evaluation.metrics import difference_interval, mean_interval
from resfit.models.families import cost
from resfit.models.networks import network
from resfit.models.spec import ModelSpec, format_spec
from resfit.recipefile import load_recipe
from resfit.solver.exact import Designed, design
from resfit.solver.expected import load_expected
from resfit.solver.ranges import default_ranges
from resfit.training.launch import start
from result import show

LIMIT, SIZE, TRIALS = 100_000, 16, 8
UNITS = {"seconds": "s", "images": "thousand images"}
REPORTS = ("r1-4", "r2-6", "r3", "r4-lighter", "r5")
Score = Callable[[ModelSpec, float, int], float]  # network, share of the budget, seed -> val accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--equal", choices=("seconds", "images"), required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--budget", type=float, default=180)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reference", type=float, help="seconds of a step of `design`'s network on a quiet machine")
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    if a.equal == "seconds" and a.reference is None:
        a.reference = min(step_seconds(pick("seconds")) for _ in range(5))
    file = a.work / f"{a.equal}-{a.budget:g}.jsonl"
    done = (
        {(row["side"], row["seed"]): row for row in map(json.loads, file.read_text().splitlines())}
        if file.exists()
        else {}
    )
    sides = dict(candidates(a.equal))
    for seed in range(a.seeds):  # in alternation, so that a slow hour is every side's
        for name, choose in sides.items():
            if (name, seed) not in done:
                score = scorer(a)
                spec, accuracy = choose(score, seed)
                done[name, seed] = {"side": name, "seed": seed, "network": format_spec(spec), "val_accuracy": accuracy}
                with file.open("a") as lines:
                    lines.write(json.dumps(done[name, seed]) + "\n")
    report(a, {name: [done[name, seed] for seed in range(a.seeds)] for name in sides})


def candidates(equal: str) -> Iterator[tuple[str, Callable[[Score, int], tuple[ModelSpec, float]]]]:
    """Yield every side: a name, and what spends a whole budget, (score, seed) -> (network, accuracy)."""

    def fixed(spec: ModelSpec) -> Callable[[Score, int], tuple[ModelSpec, float]]:
        return lambda score, seed: (spec, score(spec, 1.0, seed))

    yield "design", fixed(pick(equal))
    for name in REPORTS:
        yield f"{name} scaled", fixed(scaled(network(name)))
    yield "random search", random_search
    yield "Optuna, unfiltered", unfiltered


def pick(equal: str) -> ModelSpec:
    """Return the network that `design` puts first, for as many images or for as long a training."""
    rule = load_expected()
    found = design(Budget(LIMIT), default_ranges(more={"image_size": SIZE}), 10, rule)
    first = rule.training.seconds(found[0].spec, found[0].cost)

    def expected(one: Designed) -> float:
        return rule.accuracy(one.score, first / rule.training.seconds(one.spec, one.cost))

    return max(found, key=expected).spec if equal == "seconds" else found[0].spec


def scaled(spec: ModelSpec) -> ModelSpec:
    """Return the shape with its widths divided, and its images shrunk, so that it is the largest that keeps the limit."""
    pool = 0 if spec.pool else spec.pool
    best = None
    for percent in range(2, 101):
        widths = tuple(max(4, round(width * percent / 100)) for width in spec.widths)
        stem = max(4, round(spec.stem_width * percent / 100))
        small = replace(
            spec,
            widths=widths,
            stem_width=stem,
            image_size=SIZE,
            pool=pool,
            se_reduction=min(spec.se_reduction, min(widths)),
        )
        if cost(small).params <= LIMIT:
            best = small
    assert best is not None, f"{spec} has no size that keeps the limit"
    return best


def random_search(score: Score, seed: int) -> tuple[ModelSpec, float]:
    draw, found = random.Random(seed), list[tuple[float, ModelSpec]]()
    while len(found) < TRIALS:
        spec = drawn(lambda name, choices: draw.choice(choices))
        if cost(spec).params <= LIMIT:
            found.append((score(spec, 0.5 / TRIALS, seed), spec))
    best = max(found, key=lambda one: one[0])[1]
    return best, score(best, 0.5, seed + 100)


def unfiltered(score: Score, seed: int) -> tuple[ModelSpec, float]:
    """Search by TPE; what is over the limit is known to be so only once it has been trained."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4))
    found = list[tuple[float, ModelSpec]]()
    for _ in range(TRIALS):
        trial = study.ask()
        spec = drawn(lambda name, choices, trial=trial: trial.suggest_categorical(name, choices))  # type: ignore[misc]
        accuracy = score(spec, 0.5 / TRIALS, seed)
        fits = cost(spec).params <= LIMIT
        study.tell(trial, accuracy if fits else 0.0)
        if fits:
            found.append((accuracy, spec))
    best = max(
        found, key=lambda one: one[0], default=(0.0, ModelSpec("resnet", (8, 8, 8), (1, 1, 1), image_size=SIZE))
    )[1]
    return best, score(best, 0.5, seed + 100)


def drawn(choose: Callable[[str, list[Any]], Any]) -> ModelSpec:
    """Return a point of the space: family, three rising widths up to 96, one to four blocks a stage."""
    family = choose("family", ["resnet", "wrn", "separable"])
    widths = sorted(choose(f"width {stage}", list(range(8, 97, 8))) for stage in range(3))
    return ModelSpec(
        family, tuple(widths), tuple(choose(f"blocks {stage}", [1, 2, 3, 4]) for stage in range(3)), image_size=SIZE
    )


def scorer(a: argparse.Namespace) -> Score:
    """Return what trains with a share of the budget and returns the accuracy on val; below an epoch, on fewer images."""
    train_set, val_set = load_splits(a.data, ("train", "val"), PixelRule(SIZE))

    def score(spec: ModelSpec, share: float, seed: int) -> float:
        images = share * (
            a.budget * 1000 if a.equal == "images" else a.budget * BATCH / quiet_seconds(spec, a.reference)
        )
        epochs = max(1, round(images / len(train_set)))
        count = min(len(train_set), int(images / epochs))
        used = train_set.take(np.sort(np.random.default_rng(seed).permutation(len(train_set))[:count]))
        settings = [f"network={format_spec(spec)}", f"train.epochs={epochs}", f"train.validate_every={epochs}"]
        recipe = load_recipe("default", [*settings, "schedule.warmup_epochs=0.25", "budget.enforce=false"])
        with tempfile.TemporaryDirectory(dir=a.work) as folder:
            summary = start(recipe, used, val_set, Path(folder) / "run", seed=seed, device="cpu").summary
        return float(summary["val"]["accuracy"])

    return score


def quiet_seconds(spec: ModelSpec, reference: float) -> float:
    """Return the seconds of a network's step as if nothing else ran: `reference` times the ratio of medians."""
    steps = timed_step(spec), timed_step(pick("seconds"))
    own, other = zip(*((steps[0](), steps[1]()) for _ in range(9)), strict=True)
    return float(reference * statistics.median(own) / statistics.median(other))


def report(a: argparse.Namespace, sides: dict[str, list[dict[str, Any]]]) -> None:
    accuracies = {name: [row["val_accuracy"] for row in rows] for name, rows in sides.items()}
    ours, others = accuracies["design"], {name: values for name, values in accuracies.items() if name != "design"}
    best = max(others, key=lambda name: statistics.mean(others[name]))
    show(
        f"val accuracy of the network that `design` picks, equal training {a.equal}",
        ours,
        round(statistics.mean(others[best]), 4),
        data=f"cifar10-jpeg, {SIZE} pixels, at most {LIMIT:,} params, {a.budget:g} {UNITS[a.equal]}",
        digits=4,
        peer=f"the best of the others: {best}",
        peer_values=others[best],
        sides={name: mean_interval(values) for name, values in accuracies.items()},
        differences={name: difference_interval(ours, values) for name, values in others.items()},
        reference_step_seconds=a.reference,
        networks={name: sorted({row["network"] for row in rows}) for name, rows in sides.items()},
    )


if __name__ == "__main__":
    main()
