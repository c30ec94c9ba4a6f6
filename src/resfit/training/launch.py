"""How a run begins, continues and ends: `train`, `resume` and `train_seeds` around the loop."""

import csv
import io
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

import resfit
from resfit import durable
from resfit.budget import check_budget
from resfit.data.images import ImageSet, PixelRule
from resfit.data.sources import load_split, open_source, split_manifest
from resfit.errors import DataError, GateError, UsageError
from resfit.evaluation.bundle import write_bundle
from resfit.evaluation.metrics import mean_interval, score, softmax
from resfit.evaluation.predict import predict_logits
from resfit.machine import choose_device, default_threads, describe, tune
from resfit.models.families import build, cost
from resfit.plugins import function
from resfit.recipe import Channel3, Recipe, load_recipe, recipe_to_toml
from resfit.runs import Run, new_run, open_run
from resfit.training.checkpoint import checkpoints, load_newest, read_tensors
from resfit.training.ema import start_average
from resfit.training.loop import batch_plan, train_loop
from resfit.training.runlog import Interrupt, Interrupted, Progress, keep_rows
from resfit.training.state import Best, TrainState, new_sums, restore


def train(
    recipe: str | Path | Recipe,
    data: str | Path,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    refit: bool = False,
    device: str = "auto",
    settings: Sequence[str] = (),
) -> Run:
    """Train a recipe (a value, file, shipped name, or network) on a data source and return its run.

    The validation split chooses the epoch; with `refit` training takes train + val and keeps the last weights. `out` is
    the run folder (default: runs/<name>-<n>). Raises UsageError, DataError, GateError (over the budget), ResourceError.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    _keep_budget(recipe)
    train_set, val_set = load_data(recipe, data, refit)
    return start(recipe, train_set, val_set, out, seed=seed, device=device, source=_absolute(data))


def load_data(recipe: Recipe, data: str | Path, refit: bool) -> tuple[ImageSet, ImageSet | None]:
    """Return (train, val), or (train + val, None) for `refit`, as the recipe's pixel rule makes them."""
    rule = PixelRule(recipe.data.image_size or recipe.network.image_size)
    fraction = recipe.data.val_fraction
    if refit:
        return load_split(data, "trainval", rule, fraction), None
    return load_split(data, "train", rule, fraction), load_split(data, "val", rule, fraction)


def start(
    recipe: Recipe,
    train_set: ImageSet,
    val_set: ImageSet | None,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    device: str = "auto",
    source: str | None = None,
) -> Run:
    """Make a run folder for images in memory and train in it; `source` is where `resume` and `test` find them again."""
    recipe = resolve(recipe, train_set)
    verdict = _keep_budget(recipe)
    tune(default_threads())
    place = choose_device(device)
    run = new_run(recipe.name, None if out is None else Path(out))
    durable.write_text(run.recipe_file, recipe_to_toml(recipe))
    total = cost(recipe.network)
    run.update(
        status="running",
        name=recipe.name,
        seed=seed,
        refit=val_set is None,
        source=source,
        data={"train": train_set.fingerprint, "val": val_set.fingerprint if val_set else None},
        images={"train": len(train_set), "val": len(val_set) if val_set else 0},
        class_names=train_set.class_names,
        params=total.params,
        macs=total.macs,
        budget=asdict(recipe.budget),
        verdict=verdict,
        device=describe(place),
        device_type=str(place),
        threads=torch.get_num_threads(),
        versions=versions(),
        commit=commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if source is not None:
        _write_manifest(run, source, recipe)
    _say(f"{recipe.name}: {verdict}; {total.macs:,} macs")
    chosen = f"{len(val_set):,} to choose on" if val_set else "refit on train + val, last weights kept"
    _say(f"{train_set.source}: {len(train_set):,} images to train on, {chosen}; {len(train_set.class_names)} classes")
    _say(f"run folder: {run.folder}")
    return _execute(run, recipe, train_set, val_set, seed)


def resume(path: str | Path) -> Run:
    """Continue the run in a folder from its newest good checkpoint, with the threads and device it began with.

    On the CPU the result has the same bytes as a run that was never interrupted. Raises DataError when the images changed.
    """
    run = open_run(path)
    info, recipe = run.info, run.recipe
    if info["status"] == "finished":
        _say(f"{run.folder}: has finished already")
        return run
    if info["source"] is None:
        raise UsageError(f"{run.folder}: was trained on arrays in memory and cannot find them again. Train anew.")
    tune(info["threads"])
    choose_device(info["device_type"])
    train_set, val_set = load_data(recipe, info["source"], info["refit"])
    if train_set.fingerprint != info["data"]["train"]:
        raise DataError(f"{info['source']}: its images or labels changed since the run began. Train anew.")
    return _execute(run, recipe, train_set, val_set, info["seed"])


def train_seeds(
    recipe: str | Path | Recipe,
    data: str | Path,
    out: str | Path | None = None,
    *,
    seeds: int,
    refit: bool = False,
    device: str = "auto",
    settings: Sequence[str] = (),
) -> Run:
    """Train a recipe with seeds 0 .. seeds-1 under one parent folder; its summary has mean, deviation and interval.

    Called again with the same `out`, finished seeds are kept, interrupted ones resumed, missing ones trained.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    parent = (
        Run(Path(out)) if out and any(Path(out).glob("seed-*")) else new_run(recipe.name, Path(out) if out else None)
    )
    summaries = []
    for seed in range(seeds):
        folder = parent.folder / f"seed-{seed}"
        if (folder / "run.json").exists():
            run = resume(folder)
        else:
            run = train(recipe, data, folder, seed=seed, refit=refit, device=device)
        summaries.append(run.summary)
    accuracies = [summary["val"]["accuracy"] for summary in summaries if summary["val"]]
    value = {"name": recipe.name, "seeds": list(range(seeds)), "refit": refit}
    value |= {"val_accuracy": mean_interval(accuracies) if accuracies else None}
    durable.write_json(parent.summary_file, value)
    return parent


def resolve(recipe: Recipe, train_set: ImageSet) -> Recipe:
    """Return the recipe with what the data decides filled in: classes, image size, mean and std of the training pixels."""
    size = train_set.images.shape[-1]
    spec = replace(recipe.network, classes=len(train_set.class_names), image_size=size)
    mean, std = recipe.data.mean, recipe.data.std
    if mean is None or std is None:
        found_mean, found_std = pixel_statistics(train_set.images)
        mean, std = mean or found_mean, std or found_std
    data = recipe.data.model_copy(update={"image_size": size, "mean": mean, "std": std})
    return recipe.model_copy(update={"network": spec, "data": data})


def pixel_statistics(images: np.ndarray) -> tuple[Channel3, Channel3]:
    """Return mean and standard deviation per channel of uint8 images (N, 3, H, W) as pixels in [0, 1], to four decimals.

    From exact integer counts of the 256 values, so that neither order nor threads can change a digit.
    """
    levels = np.arange(256) / 255

    def of_channel(channel: int) -> tuple[float, float]:
        shares = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        mean = float((shares * levels).sum())
        std = float(np.sqrt((shares * (levels - mean) ** 2).sum()))
        return round(mean, 4), max(round(std, 4), 1e-4)  # images of one colour have no deviation to divide by

    (r, r_std), (g, g_std), (b, b_std) = map(of_channel, range(3))
    return (r, g, b), (r_std, g_std, b_std)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "resfit": resfit.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """Return the commit of resfit's own checkout, with + where files differ from it; None when installed from a wheel."""
    folder = Path(__file__).parents[3]
    if not (folder / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _execute(run: Run, recipe: Recipe, train_set: ImageSet, val_set: ImageSet | None, seed: int) -> Run:
    device = torch.device(run.info["device_type"])
    state = make_state(recipe, seed, device)
    if checkpoints(run.checkpoints):
        _load(run, state, device)
    elif run.metrics_file.exists():
        load_newest(run.checkpoints)  # raises: rows without a checkpoint must not start over in silence
    run.update(status="running")
    keep_rows(run.metrics_file, state.epoch)
    epochs = recipe.train.epochs
    progress = Progress(epochs, len(train_set))
    try:
        with Interrupt().watching() as interrupt:
            train_loop(recipe, state, train_set, val_set, run, seed, interrupt, progress.step, progress.epoch)
    except Interrupted as stop:
        run.update(status="interrupted")
        _say(f"{stop}; continue with: resfit resume {run.folder}")
        raise
    except Exception as error:
        run.update(status="failed", error=str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise
    _finish(run, recipe, state, train_set, val_set)
    return run


def make_state(recipe: Recipe, seed: int, device: torch.device) -> TrainState:
    """Return the state before the first step: weights drawn from the seed, channels last, optimizer and average empty."""
    model = build(recipe.network, seed).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optim = recipe.optim
    make = function("optimizers", optim.name)
    optimizer = make(model.parameters(), lr=optim.lr, weight_decay=optim.weight_decay, **optim.params)
    average = start_average(model) if recipe.train.ema_decay > 0 else None
    return TrainState(model, optimizer, average, sums=new_sums(device))


def _load(run: Run, state: TrainState, device: torch.device) -> None:
    tensors, header, damaged = load_newest(run.checkpoints)
    for line in damaged:
        _say(line)
    restore(state, tensors, device)
    state.step, state.epoch, state.seconds = header["step"], header["epoch"], header["seconds"]
    state.best = Best(**header["best"]) if header["best"] else Best()
    _say(f"{run.folder}: continues at step {state.step} (epoch {state.epoch + 1})")


def _finish(run: Run, recipe: Recipe, state: TrainState, train_set: ImageSet, val_set: ImageSet | None) -> None:
    """Write bundle, predictions on val and summary from the chosen weights."""
    weights, _ = read_tensors(run.best_file)
    write_bundle(run.bundle, recipe, weights, train_set.class_names)
    val = None
    if val_set is not None:
        assert val_set.labels is not None
        state.model.load_state_dict(weights)
        logits = predict_logits(state.model, val_set.images, recipe.data.mean or (), recipe.data.std or ())
        val = score(logits, val_set.labels, val_set.class_names)
        buffer = io.BytesIO()
        np.savez(buffer, probs=softmax(logits), labels=val_set.labels, keys=val_set.keys)
        durable.write_bytes(run.folder / "predictions" / "val.npz", buffer.getvalue())
    rows, info = run.metrics, run.info
    train_seconds = sum(row["train_seconds"] for row in rows)
    summary: dict[str, Any] = {
        "name": recipe.name,
        "params": info["params"],
        "macs": info["macs"],
        "verdict": info["verdict"],
        "val": val,
        "epoch": state.best.epoch if val else recipe.train.epochs - 1,
        "epochs": recipe.train.epochs,
        "weights": "best epoch on val" if val else "last epoch, trained on train + val",
        "tta_views": 1,
        "train_images": len(train_set),
        "seed": info["seed"],
        "train_seconds": train_seconds,
        "val_seconds": sum(row.get("val_seconds", 0.0) for row in rows),
        "images_per_second": batch_images(recipe, len(train_set)) * len(rows) / train_seconds,
        "device": info["device"],
        "data": info["data"],
    }
    durable.write_json(run.summary_file, summary)
    run.update(status="finished", finished=datetime.now(UTC).isoformat(timespec="seconds"))
    if val:
        low, high = val["interval"]
        chosen = f"epoch {summary['epoch'] + 1} of {recipe.train.epochs}"
        _say(f"val accuracy {val['accuracy']:.2%} (95% {low:.2%} to {high:.2%}, n {val['n']:,}), {chosen}")
    _say(f"trained in {train_seconds:.1f} s; next: resfit test {run.folder}")


def batch_images(recipe: Recipe, count: int) -> int:
    """Return the number of images an epoch trains on."""
    size, steps = batch_plan(recipe, count)
    return min(size * steps, count)


def _keep_budget(recipe: Recipe) -> str:
    verdict = check_budget(cost(recipe.network), recipe.budget)
    if not verdict.ok:
        key = verdict.over[0]
        raise GateError(f"{recipe.name}: {verdict.text}. Take a smaller network or raise it: --set budget.{key}=...")
    return verdict.text


def _write_manifest(run: Run, source: str, recipe: Recipe) -> None:
    """Write down who is in which split where the source brings none of its own."""
    if "all" in open_source(source).splits:
        buffer = io.StringIO()
        rows = split_manifest(source, recipe.data.val_fraction)
        csv.writer(buffer, lineterminator="\n").writerows([("id", "class", "split"), *rows])
        durable.write_text(run.folder / "split.csv", buffer.getvalue())


def _absolute(data: str | Path) -> str:
    return str(Path(data).absolute()) if os.path.exists(data) else str(data)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
