"""The end of a run: bundle, predictions on the validation split, and the summary."""

import io
from datetime import UTC, datetime
from typing import Any

import numpy as np

from resfit import durable
from resfit.data.images import ImageSet
from resfit.errors import ResourceError
from resfit.evaluation.bundle import write_bundle
from resfit.evaluation.card import write_card
from resfit.evaluation.config import VIEWS
from resfit.evaluation.metrics import score, softmax
from resfit.evaluation.predict import predict_logits
from resfit.recipe import Recipe
from resfit.runs import Run
from resfit.training.checkpoint import read_tensors
from resfit.training.loop import batch_plan
from resfit.training.runlog import say
from resfit.training.state import TrainState


def finish(run: Run, recipe: Recipe, state: TrainState, train_set: ImageSet, val_set: ImageSet | None) -> None:
    """Write bundle, predictions on val, summary and card from the chosen weights."""
    epoch = state.best.epoch if val_set is not None else state.epoch - 1
    chosen = run.best_file(epoch)
    run.drop_other_best(epoch)
    durable.sync_folder(run.checkpoints)  # or a power cut after the end brings them back
    try:
        weights, _ = read_tensors(chosen)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(
            f"{chosen}: cannot be read: {reason}. See to the disk, then `resfit resume` the run."
        ) from error
    except ValueError as error:
        raise ResourceError(f"{chosen}: the chosen weights are damaged: {error}. Train anew.") from error
    write_bundle(run.bundle, recipe, weights, train_set.class_names)
    val = None
    if val_set is not None:
        assert val_set.labels is not None
        state.model.load_state_dict(weights)
        mean, std = recipe.data.mean or (), recipe.data.std or ()
        logits = predict_logits(state.model, val_set.images, mean, std, recipe.tta, recipe.tta_below)
        val = score(logits, val_set.labels, val_set.class_names)
        buffer = io.BytesIO()
        np.savez(buffer, probs=softmax(logits), labels=val_set.labels, keys=val_set.keys)
        durable.write_bytes(run.predictions_file, buffer.getvalue())
    rows, info = run.metrics, run.info
    train_seconds = sum(row["train_seconds"] for row in rows)
    summary: dict[str, Any] = {
        "name": recipe.name,
        "params": info["params"],
        "macs": info["macs"],
        "verdict": info["verdict"],
        "val": val,
        "epoch": epoch,
        "epochs": len(rows),
        "rollbacks": state.rollbacks,
        "weights": "best epoch on val" if val else "last epoch, trained on train + val",
        "tta_views": VIEWS[recipe.tta],
        "tta_below": recipe.tta_below,
        "train_images": len(train_set),
        "seed": info["seed"],
        "train_seconds": train_seconds,
        "compile_seconds": info["compile_seconds"],
        "val_seconds": sum(row.get("val_seconds", 0.0) for row in rows),
        "images_per_second": _seen(recipe, len(train_set), state.step) / train_seconds,
        "device": info["device"],
        "data": info["data"],
    }
    if info.get("time_limit"):
        summary["time_limit"] = {"seconds": info["time_limit"]["seconds"], "epochs": recipe.train.epochs}
    durable.write_json(run.summary_file, summary)
    write_card(run)
    run.update(status="finished", finished=datetime.now(UTC).isoformat(timespec="seconds"))
    if val:
        low, high = val["interval"]
        say(f"val accuracy {val['accuracy']:.2%} (95% {low:.2%} to {high:.2%}, n {val['n']:,}), the best of all epochs")
        say(f"with the weights of epoch {summary['epoch'] + 1} of {summary['epochs']}, chosen by it")
    say(f"trained on {len(train_set):,} images in {train_seconds:.1f} s; next: resfit test {run.folder}")


def _seen(recipe: Recipe, count: int, step: int) -> int:
    """Return the number of images that so many steps train on."""
    size, steps = batch_plan(recipe, count)
    epochs, rest = divmod(step, steps)
    return epochs * min(size * steps, count) + rest * size
