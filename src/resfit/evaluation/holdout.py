"""Judging a run: `evaluate` on the validation split as often as one likes, `test` on the test split once, with a receipt."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from resfit import durable
from resfit.data.images import ImageSet
from resfit.data.sources import load_split, load_splits
from resfit.errors import DataError, ResourceError, UsageError
from resfit.evaluation.bundle import Bundle, load_bundle
from resfit.evaluation.card import offer_card, write_card
from resfit.evaluation.metrics import mean_interval, score
from resfit.runs import Run, open_run, seed_runs


def evaluate(path: str | Path, data: str | Path | None = None, device: str = "auto") -> dict[str, Any]:
    """Return the score of a run on its validation split: accuracy, Wilson interval, nll, n, by class.

    `data` says where the images are now, if not where training found them. Raises UsageError for a refit run.
    """
    run = open_run(path)
    bundle, (val,) = open_held_out(run, data, device, "val")
    return _score(bundle, val) | how_scored(run)


def open_held_out(
    run: Run, data: str | Path | None, device: str, *splits: Literal["train", "val"]
) -> tuple[Bundle, list[ImageSet]]:
    """Return a run's bundle and splits of its images, checked to be the run's own.

    Raises UsageError for a refit run, which holds nothing out, and DataError for other images.
    """
    info = run.info
    if info["refit"]:
        raise UsageError(f"{run.folder}: was refit on train + val, so nothing is held out. Use `resfit test`.")
    bundle = load_bundle(run.folder, device)
    how = run.recipe.data
    found = load_splits(find_source(run, data), splits, bundle.rule, how.val_fraction, how.group_by)
    roles = {"train": "trained", "val": "chose"}
    for name, images in zip(splits, found, strict=True):
        if images.fingerprint != info["data"][name]:
            what = "validation" if name == "val" else "training"
            raise DataError(
                f"{images.source}: its {what} split is not the one the run {roles[name]} on. Name the run's own data."
            )
    return bundle, found


def test(path: str | Path, data: str | Path | None = None, device: str = "auto", again: bool = False) -> dict[str, Any]:
    """Open the test split, score the run on it, and write the receipt `test.json`; asked again, return that receipt.

    With `again` the split is opened anew. Every opening is noted in a ledger kept per test-set fingerprint, and the
    receipt says which one it was.
    """
    run = open_run(path)
    if run.receipt_file.exists() and not again:
        receipt: dict[str, Any] = json.loads(run.receipt_file.read_text())
        offer_card(run)  # a kill may have come between the receipt and the card
        return receipt | {"reopened": False}
    bundle = load_bundle(run.folder, device)
    how, info = how_scored(run), run.info
    fraction, group_by = run.recipe.data.val_fraction, run.recipe.data.group_by
    if info["source"] is not None:  # else no source holds what it was trained on
        trained: Literal["train", "trainval"] = "trainval" if info["refit"] else "train"
        train = load_split(find_source(run, data), trained, bundle.rule, fraction, group_by)
        if train.fingerprint != info["data"]["train"]:
            raise DataError(
                f"{train.source}: is not what the run was trained on, so its test split may not be unseen. Train anew."
            )
    split = load_split(find_source(run, data), "test", bundle.rule, fraction, group_by)
    _check_classes(bundle, split)
    opening = note_opening(split.fingerprint, run.folder)
    receipt = _score(bundle, split) | {
        "split": "test",
        "source": split.source,
        "fingerprint": split.fingerprint,
        "opening": opening,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        **how,
        "params": info["params"],
        "commit": info["commit"],
    }
    durable.write_json(run.receipt_file, receipt)
    write_card(run)
    return receipt | {"reopened": True}


def over_seeds(path: str | Path, judge: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Judge every seed below the parent that `train --seeds` made: `accuracy` (mean, std, t-interval, n) and `seeds`.

    `judge` maps a run's folder to its score, as `evaluate` and `test` do. Raises UsageError before the first one is judged
    where a seed has not finished.
    """
    runs = seed_runs(path)
    if not Run(Path(path)).summary_file.exists():
        raise UsageError(
            f"{path}: its seeds have not all finished. Give the same train command again with --out {path}."
        )
    for run in runs:
        how_scored(run)
    seeds = [{"run": str(run.folder), **judge(run.folder)} for run in runs]
    return {"accuracy": mean_interval([seed["accuracy"] for seed in seeds]), "seeds": seeds}


def note_opening(fingerprint: str, run: Path) -> int:
    """Add a line to the ledger of a test set and return which opening, counted from 1, this is.

    The ledger lies in $RESFIT_STATE, else $XDG_STATE_HOME/resfit, else ~/.local/state/resfit. Raises ResourceError.
    """
    ledger = state_folder() / "test-openings" / f"{fingerprint}.jsonl"
    line = json.dumps({"when": datetime.now(UTC).isoformat(timespec="seconds"), "run": str(run.absolute())})
    try:
        with durable.turn(ledger):
            lines = ledger.read_text().splitlines() if ledger.exists() else []
            durable.write_text(ledger, "".join(f"{each}\n" for each in [*lines, line]))
        return len(lines) + 1
    except (OSError, ResourceError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ResourceError(f"{ledger}: cannot be written: {reason}. Set RESFIT_STATE to a writable folder.") from error


def state_folder() -> Path:
    """Return the folder of what outlives runs."""
    if "RESFIT_STATE" in os.environ:
        return Path(os.environ["RESFIT_STATE"]).expanduser()
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "resfit"


def how_scored(run: Run) -> dict[str, Any]:
    """Return what every accuracy must say of itself: training images, how the weights were chosen, views a prediction."""
    summary = {"tta_below": 1.0} | run.summary  # older runs do not say
    return {name: summary[name] for name in ("train_images", "weights", "tta_views", "tta_below")}


def find_source(run: Run, data: str | Path | None) -> str | Path:
    """Return where a run's images are: `data` if given, else where training found them. Raises UsageError, DataError."""
    source: str | None = run.info["source"]
    if data is not None:
        return data
    if source is None:
        raise UsageError(f"{run.folder}: was trained on arrays in memory. Name the images with --data.")
    if os.path.isabs(source) and not os.path.exists(source):
        raise DataError(f"{source}: the images of {run.folder} are no longer there. Name the place with --data.")
    return source


def _score(bundle: Bundle, images: ImageSet) -> dict[str, Any]:
    assert images.labels is not None
    return score(bundle.logits(images), images.labels, bundle.class_names)


def _check_classes(bundle: Bundle, images: ImageSet) -> None:
    if images.class_names != bundle.class_names:
        ours, theirs = ", ".join(bundle.class_names[:5]), ", ".join(images.class_names[:5])
        raise DataError(
            f"{images.source}: its classes ({theirs}, ...) are not the run's ({ours}, ...). Name other data."
        )
