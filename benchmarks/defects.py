"""Measure two defects of the reports and one comparison on one small network: the study behind docs/defects.md.

Usage: RESFIT_STATE=... python benchmarks/defects.py epochs DATA WORK [--seeds 0 1 2]
       RESFIT_STATE=... python benchmarks/defects.py optimizers DATA WORK [--arms adam sgd]
`benchmarks/defect_figures.py` makes the figures from WORK.

This is the one place beside `resfit test` that reads test images, and it reads them after every epoch: what it measures is
what such readings do. No choice of the project is made from it. It writes no receipts, and notes its openings in a ledger of
its own, under $RESFIT_STATE. Each training run is kept in WORK when it ends; called again, only what is missing is trained.

Epochs are made of the library's own functions in the order of resfit.training.loop (a test compares the two), because the
loop keeps one epoch's weights and this needs a reading of all.
"""

import argparse
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resfit import durable
from resfit.data.augment import Augment, make_augment
from resfit.data.batches import epoch_order
from resfit.data.images import ImageSet, PixelRule
from resfit.data.sources import load_split
from resfit.evaluation.holdout import note_opening
from resfit.evaluation.metrics import nll
from resfit.evaluation.predict import predict_logits
from resfit.machine import default_threads, tune, versions
from resfit.recipe import Recipe
from resfit.recipefile import load_recipe
from resfit.training.init import make_state
from resfit.training.loop import batch_plan
from resfit.training.resolve import resolve
from resfit.training.runlog import say
from resfit.training.state import Best, TrainState, shipped_weights
from resfit.training.step import make_step
from result import commit

# ResNet-8 with its first stage at half resolution: twice as fast, and the same network in every part of the study. A crop's
# padding of 2 at 16 pixels is the reports' 4 at 32.
COMMON = ("network=resnet-8", "network.strides=[2,2,2]", "data.image_size=16", "augment.crop.padding=2")
EPOCHS, OPTIMIZER_EPOCHS = 15, 4
DRAWS = 5  # of the training augmentation on the test images, for the weights kept
ARMS = {
    "adam": ("r2-adam", ()),
    "sgd": ("r2-sgd", ()),
    "sgd-momentum": ("r2-sgd", ("optim.momentum=0.9",)),
}
LADDER = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FIRST_RATES = {
    "adam": (0.1, 0.03, 0.01, 0.003, 0.001, 0.0003),
    "sgd": (1.0, 0.3, 0.1, 0.03, 0.01),
    "sgd-momentum": (0.3, 0.1, 0.03, 0.01, 0.003),
}
R2_ARMS = ("adam", "sgd")
SHARED_RATE = 0.1  # R2's, for both
SWEEP_SEED, SEEDS = 0, (1, 2, 3)  # the rate is chosen with one seed and judged with others
CPU = torch.device("cpu")

Splits = dict[str, ImageSet]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("epochs", "optimizers"):
        train = verbs.add_parser(verb)
        train.add_argument("data")
        train.add_argument("work", type=Path)
        train.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4] if verb == "epochs" else SEEDS)
        train.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    options = parser.parse_args()
    if "RESFIT_STATE" not in os.environ:
        parser.error("RESFIT_STATE: names no folder. Set it to one for this study's ledger of test openings alone.")
    tune(default_threads())
    splits = load_splits(options.data, 16)
    if options.verb == "epochs":
        for seed in options.seeds:
            record(options.work, f"r5-{seed}", epochs_recipe(), splits, seed, DRAWS)
        return
    for arm in options.arms:
        sweep(options.work, arm, splits)
    for seed in options.seeds:
        for arm in options.arms:
            for rate in judged_rates(options.work, arm, splits):
                optimizer_run(options.work, arm, rate, splits, seed)


# ---- training, with a reading after every epoch


def load_splits(data: str | Path, size: int) -> Splits:
    return {part: load_split(data, part, PixelRule(size)) for part in ("train", "val", "test")}


def epochs_recipe() -> Recipe:
    """Return R5's recipe for the small network."""
    return load_recipe("r5", [*COMMON, f"train.epochs={EPOCHS}"])


def optimizer_recipe(arm: str, rate: float) -> Recipe:
    """Return the recipe of an arm of R2's comparison at a learning rate."""
    name, settings = ARMS[arm]
    length = [f"train.epochs={OPTIMIZER_EPOCHS}", "schedule.interval=step"]
    return load_recipe(name, [*COMMON, *settings, *length, f"optim.lr={rate}"])


def optimizer_run(work: Path, arm: str, rate: float, splits: Splits | None, seed: int) -> dict[str, Any]:
    return record(work, f"{arm}-{rate:g}-{seed}", optimizer_recipe(arm, rate), splits, seed, 0)


def sweep(work: Path, arm: str, splits: Splits | None) -> dict[float, dict[str, Any]]:
    """Return the runs of an arm by learning rate: the first rates, then neighbours of the best until it is no edge."""
    runs = {rate: optimizer_run(work, arm, rate, splits, SWEEP_SEED) for rate in FIRST_RATES[arm]}
    while (rate := untried_neighbour({rate: run["best"]["accuracy"] for rate, run in runs.items()})) is not None:
        runs[rate] = optimizer_run(work, arm, rate, splits, SWEEP_SEED)
    return runs


def untried_neighbour(accuracies: Mapping[float, float]) -> float | None:
    """Return a rate of LADDER beside the best one that was not tried, or None; at the ladder's end the best is an edge."""
    place = LADDER.index(max(accuracies, key=lambda rate: accuracies[rate]))
    return next((rate for rate in LADDER[max(place - 1, 0) : place + 2] if rate not in accuracies), None)


def best_rate(runs: Mapping[float, Mapping[str, Any]]) -> float:
    """Return the rate with the highest validation accuracy at its best epoch."""
    return max(runs, key=lambda rate: runs[rate]["best"]["accuracy"])


def judged_rates(work: Path, arm: str, splits: Splits | None) -> list[float]:
    """Return the rates that an arm is judged at: its best, and for R2's own two also the one that R2 gave both."""
    best = best_rate(sweep(work, arm, splits))
    return sorted({best, SHARED_RATE} if arm in R2_ARMS else {best})


def record(work: Path, name: str, recipe: Recipe, splits: Splits | None, seed: int, draws: int) -> dict[str, Any]:
    """Return the readings of a run, trained now unless WORK has them; without `splits` they must be there.

    val_accuracy (E,), test (E, N) whether each test image is right, and with `draws` also augmented (E, N), the same through
    the training augmentation, and chosen, chosen_r5 (draws, N), more draws with the weights chosen on val and on augmented.
    """
    file = work / f"{name}.npz"
    if not file.exists():
        assert splits is not None, f"{file} is missing"
        opening = note_opening(splits["test"].fingerprint, work / name)
        about = {"name": name, "seed": seed, "opening": opening, "commit": commit(), "versions": versions()}
        recipe = resolve(recipe, splits["train"])
        arrays, best = readings(recipe, splits, seed, draws)
        about |= {"best": asdict(best), "images": {part: len(images) for part, images in splits.items()}}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
        durable.write_bytes(file, buffer.getvalue())
        say(f"{name}: val {best.accuracy:.4f} at epoch {best.epoch + 1}, test {arrays['test'][best.epoch].mean():.4f}")
    with np.load(file) as kept:
        found: dict[str, Any] = json.loads(str(kept["about"]))
        return found | {key: kept[key] for key in kept.files if key != "about"}


def readings(recipe: Recipe, splits: Splits, seed: int, draws: int) -> tuple[dict[str, np.ndarray], Best]:
    """Train a resolved recipe and return the arrays of `record`, and the epoch that validation chooses."""
    val, test = splits["val"], splits["test"]
    assert val.labels is not None
    pixels = torch.from_numpy(np.array(test.images))
    augment = make_augment(recipe.augment)
    best, best_r5 = Best(), Best()
    rows: dict[str, list[Any]] = {"val_accuracy": [], "test": [], "augmented": []}
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for epoch, state in enumerate(epochs(recipe, splits["train"], seed)):
        with shipped_weights(state) as model:
            logits = logits_of(model, recipe, torch.from_numpy(np.array(val.images)))
            found = float((logits.argmax(1) == val.labels).mean()), nll(logits, val.labels)
            rows["val_accuracy"].append(found[0])
            rows["test"].append(right(model, recipe, test, pixels))
            if best.epoch < 0 or best.is_beaten_by(*found):
                best, weights["chosen"] = Best(epoch, *finite(found)), copied(model)
            if draws:
                rows["augmented"].append(right(model, recipe, test, seen(augment, pixels, seed, epoch)))
                if best_r5.is_beaten_by(rows["augmented"][-1].mean(), 0.0):
                    best_r5, weights["chosen_r5"] = Best(epoch, rows["augmented"][-1].mean(), 0.0), copied(model)
            last = model
    for name, kept in weights.items() if draws else ():
        last.load_state_dict(kept)
        views = [seen(augment, pixels, seed, int(recipe.train.epochs) + draw) for draw in range(draws)]
        rows[name] = [right(last, recipe, test, view) for view in views]
    return {name: np.array(values) for name, values in rows.items() if values}, best


def epochs(recipe: Recipe, train_set: ImageSet, seed: int) -> Iterator[TrainState]:
    """Train a resolved recipe as `train_loop` does and yield the state after each epoch."""
    images, labels = torch.from_numpy(np.array(train_set.images)), torch.from_numpy(np.array(train_set.labels))
    batch_size, steps_per_epoch = batch_plan(recipe, len(train_set))
    state, step = make_state(recipe, seed, CPU), make_step(recipe, steps_per_epoch, CPU)
    state.model.train()
    for epoch in range(int(recipe.train.epochs)):
        order = epoch_order(seed, epoch, len(train_set))
        for index in torch.split(order, batch_size)[:steps_per_epoch]:
            step(state, images[index], labels[index], index, seed)
        yield state
        state.epoch = epoch + 1


def seen(augment: Augment, pixels: torch.Tensor, seed: int, epoch: int) -> torch.Tensor:
    """Return images (N, 3, H, W) as training of that seed and epoch would show them."""
    parts = torch.split(torch.arange(len(pixels)), 500)
    return torch.cat([augment(pixels[index], index, seed, epoch) for index in parts])


def right(model: torch.nn.Module, recipe: Recipe, images: ImageSet, pixels: torch.Tensor) -> np.ndarray:
    """Return (N,) whether each image, shown as `pixels`, is classified right."""
    return np.asarray(logits_of(model, recipe, pixels).argmax(1) == images.labels)


def logits_of(model: torch.nn.Module, recipe: Recipe, pixels: torch.Tensor) -> np.ndarray:
    return predict_logits(model, pixels, recipe.data.mean or (), recipe.data.std or (), recipe.tta)


def copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def finite(found: tuple[float, float]) -> tuple[float, float]:
    """Return (accuracy, nll) with a diverged run's nll as one that JSON can hold and anything beats."""
    return found[0], found[1] if math.isfinite(found[1]) else 1e9


if __name__ == "__main__":
    main()
