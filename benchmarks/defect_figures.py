"""The figures of the study of the reports' defects, from the runs that benchmarks/defects.py kept; prints JSON.

Usage: python benchmarks/defect_figures.py {flattery,augmented,optimizers} WORK > results/defects/NAME.json
Accuracies are fractions in the JSON, percent on the page; a difference of them is in points there. Intervals are 95% and over
training runs (Student's t; Welch's for two groups), the test images being the same in all. The value of `optimizers` itself is
the mean over seeds of the difference at a seed, its interval Student's t of these.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resfit.evaluation.metrics import difference_interval, mean_interval
from result import show

PARTS = (250, 1000, 2500, 5000)  # sizes of a smaller test set
SHARED_RATE = 0.1  # R2's, for both optimizers
SWEEP_SEED = 0

Run = dict[str, Any]
Arm = tuple[str, float]  # an optimizer and its learning rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=FIGURES)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    FIGURES[options.figure](read_runs(options.work))


def read_runs(work: Path) -> list[Run]:
    """Return the kept runs, by name."""
    runs = []
    for file in sorted(work.glob("*.npz")):
        with np.load(file) as kept:
            runs.append(json.loads(str(kept["about"])) | {key: kept[key] for key in kept.files if key != "about"})
    return runs


# ---- (a) the best epoch on test beside the best epoch on validation


def flattery(test: np.ndarray, chosen: int) -> float:
    """Return the highest accuracy of an epoch less that of the chosen one; test (E, N) is whether an image is right."""
    accuracies = test.mean(1)
    return float(accuracies.max() - accuracies[chosen])


def small_sets(test: np.ndarray, chosen: int, size: int) -> tuple[float, float]:
    """Return the mean (flattery, optimism) over disjoint test sets of `size` images drawn from test (E, N).

    Optimism: the accuracy on the set that chose the epoch, less that of the same weights on all other images.
    """
    count = test.shape[1]
    order = np.random.default_rng(0).permutation(count)
    found = []
    for part in np.split(order[: count // size * size], count // size):
        accuracies = test[:, part].mean(1)
        best = int(accuracies.argmax())
        elsewhere = np.delete(test[best], part).mean()
        found.append((accuracies[best] - accuracies[chosen], accuracies[best] - elsewhere))
    gap, optimism = np.mean(found, axis=0)
    return float(gap), float(optimism)


def show_flattery(runs: Sequence[Run]) -> None:
    runs = [run for run in runs if run["name"].startswith("r5-")]
    gaps = [flattery(run["test"], run["best"]["epoch"]) for run in runs]
    sizes: list[dict[str, Any]] = []
    for size in PARTS:
        found = [small_sets(run["test"], run["best"]["epoch"], size) for run in runs]
        gaps_there, optimisms = [pair[0] for pair in found], [pair[1] for pair in found]
        sizes.append({"images": size, "flattery": mean_interval(gaps_there), "optimism": mean_interval(optimisms)})
    sizes.append({"images": runs[0]["test"].shape[1], "flattery": mean_interval(gaps), "optimism": None})
    seeds = [
        {
            "seed": run["seed"],
            "chosen_on_val": run["best"]["epoch"],
            "best_on_test": int(run["test"].mean(1).argmax()),
            "test_at_chosen": float(run["test"].mean(1)[run["best"]["epoch"]]),
            "test_at_best": float(run["test"].mean(1).max()),
            "val_curve": run["val_accuracy"].tolist(),
            "test_curve": run["test"].mean(1).tolist(),
        }
        for run in runs
    ]
    show_mean("flattery of the best epoch on test over the best on validation", gaps, runs, sizes=sizes, seeds=seeds)


# ---- (b) test images through the training augmentation beside clean ones


def twice(clean: np.ndarray, draws: np.ndarray) -> tuple[float, float, float]:
    """Return (clean accuracy, mean accuracy of the draws, standard deviation between draws); clean (N,), draws (D, N)."""
    accuracies = draws.mean(1)
    return float(clean.mean()), float(accuracies.mean()), float(accuracies.std(ddof=1))


def as_r5_did(test: np.ndarray, augmented: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
    """Return R5's "validation" accuracy, the best epoch's of augmented (E, N), and its "test" accuracies, the draws (D, N)."""
    accuracies, again = augmented.mean(1), draws.mean(1)
    epoch = int(accuracies.argmax())
    named = {"epoch": epoch, "validation": float(accuracies[epoch]), "test": again.tolist()}
    return named | {"clean": float(test[epoch].mean()), "difference": float(accuracies[epoch] - again.mean())}


def show_augmented(runs: Sequence[Run]) -> None:
    runs = [run for run in runs if run["name"].startswith("r5-")]
    seeds = []
    for run in runs:
        clean, augmented, between = twice(run["test"][run["best"]["epoch"]], run["chosen"])
        r5 = as_r5_did(run["test"], run["augmented"], run["chosen_r5"])
        seeds.append({"seed": run["seed"], "clean": clean, "augmented": augmented, "between_draws": between, "r5": r5})
    show_mean(
        "accuracy that R5's augmentation of the test images takes away",
        [seed["clean"] - seed["augmented"] for seed in seeds],
        runs,
        draws=len(runs[0]["chosen"]),
        clean=mean_interval([seed["clean"] for seed in seeds]),
        augmented=mean_interval([seed["augmented"] for seed in seeds]),
        between_draws=float(np.sqrt(np.mean([seed["between_draws"] ** 2 for seed in seeds]))),
        r5_difference=mean_interval([seed["r5"]["difference"] for seed in seeds]),
        seeds=seeds,
    )


# ---- (c) two optimizers at one learning rate, and each at its own best


def arm_rate(run: Run) -> Arm:
    arm, rate, _ = run["name"].rsplit("-", 2)
    return arm, float(rate)


def at_chosen(run: Run) -> float:
    """Return the test accuracy of the epoch chosen on validation."""
    return float(run["test"][run["best"]["epoch"]].mean())


def best_rates(sweep: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, bool]]:
    """Return each arm's rate with the highest validation accuracy, and whether it is the lowest or highest tried."""
    found = {}
    for arm in dict.fromkeys(row["arm"] for row in sweep):
        rows = [row for row in sweep if row["arm"] == arm]
        best = max(rows, key=lambda row: row["val_accuracy"])["rate"]
        tried = [row["rate"] for row in rows]
        found[arm] = (best, best in (min(tried), max(tried)))
    return found


def show_optimizers(runs: Sequence[Run]) -> None:
    runs = [run for run in runs if not run["name"].startswith("r5-")]
    sweep: list[dict[str, Any]] = []
    tests: dict[Arm, dict[int, float]] = {}
    for run in runs:
        arm, rate = arm_rate(run)
        if run["seed"] == SWEEP_SEED:
            sweep.append({"arm": arm, "rate": rate, "val_accuracy": run["best"]["accuracy"]})
        else:
            tests.setdefault((arm, rate), {})[run["seed"]] = at_chosen(run)
    edges = best_rates(sweep)
    best = {arm: (arm, rate) for arm, (rate, _) in edges.items()}
    pairs = [(("sgd", SHARED_RATE), ("adam", SHARED_RATE)), (best["sgd"], best["adam"])]
    pairs += [(best[arm], best["adam"]) for arm in ("sgd-momentum",) if arm in best]
    pairs += [(best[arm], (arm, SHARED_RATE)) for arm in ("adam", "sgd")]
    plain, adam = tests[best["sgd"]], tests[best["adam"]]
    show_mean(
        "test accuracy of SGD less Adam's, each at its own best learning rate",
        [plain[seed] - adam[seed] for seed in sorted(plain.keys() & adam.keys())],
        runs,
        sweep=sorted(sweep, key=lambda row: (row["arm"], row["rate"])),
        best={arm: {"rate": rate, "at_an_edge": edge} for arm, (rate, edge) in edges.items()},
        judged=[judged(arm, rate, found, best) for (arm, rate), found in sorted(tests.items())],
        differences=[
            difference(left, right, tests) for left, right in pairs if left != right and {left, right} <= tests.keys()
        ],
    )


def judged(arm: str, rate: float, found: Mapping[int, float], best: Mapping[str, Arm]) -> dict[str, Any]:
    values = [found[seed] for seed in sorted(found)]
    return {
        "arm": arm,
        "rate": rate,
        "best": best[arm] == (arm, rate),
        "test": mean_interval(values),
        "by_seed": values,
    }


def difference(left: Arm, right: Arm, tests: Mapping[Arm, Mapping[int, float]]) -> dict[str, Any]:
    """Return the difference of two groups' means with Welch's interval."""
    found = difference_interval(list(tests[left].values()), list(tests[right].values()))
    return {"left": list(left), "right": list(right), **found}


# ---- JSON


def show_mean(figure: str, values: Sequence[float], runs: Sequence[Run], **more: Any) -> None:
    """Print a result whose value is the mean of `values`, one a training run, with its interval."""
    found = mean_interval(values)
    show(
        figure,
        values,
        None,
        data="cifar10-jpeg",
        digits=5,
        goal_is="none set",
        value=round(found["mean"], 5),
        interval=found["interval"],
        std=found["std"],
        epochs=len(runs[0]["val_accuracy"]),
        images=runs[0]["images"],
        run_commits=sorted({run["commit"] for run in runs}),
        versions=runs[0]["versions"],
        **more,
    )


FIGURES: dict[str, Callable[[Sequence[Run]], None]] = {
    "flattery": show_flattery,
    "augmented": show_augmented,
    "optimizers": show_optimizers,
}


if __name__ == "__main__":
    main()
