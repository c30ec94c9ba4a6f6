"""Everything that the validation split tells of a run, in one file: `evaluate_fully`. The test split stays closed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from resfit import durable
from resfit.data.duplicates import Duplicates, find_duplicates
from resfit.data.images import ImageSet
from resfit.data.sources import split_manifest
from resfit.evaluation.bundle import Bundle
from resfit.evaluation.calibration import calibration
from resfit.evaluation.card import write_card
from resfit.evaluation.corruptions import CORRUPTIONS, STRENGTHS, corrupt
from resfit.evaluation.holdout import find_source, how_scored, open_held_out
from resfit.evaluation.labels import balance, confident_mistakes, confusion, label_issues, suspicious
from resfit.evaluation.metrics import score, softmax, wilson_interval
from resfit.evaluation.selective import selective
from resfit.recipe import Data
from resfit.runs import open_run

CORRUPTED = 1000  # images at most, those with the smallest keys
PAIRS = 50  # of duplicates that are named

Say = Callable[[str], None]


def evaluate_fully(
    path: str | Path, data: str | Path | None = None, device: str = "auto", say: Say = lambda text: None
) -> dict[str, Any]:
    """Return all that the validation split tells of a run, and write it to `evaluation.json` in the run's folder.

    What `evaluate` returns, and class_names, confusion, mistakes, calibration, selective, corruptions, duplicates, balance,
    suspicious, label_issues: docs/design.md has the form, each module of `evaluation` its source. `data` and `device` as for
    `evaluate`; `say` is told what takes long. Raises UsageError for a refit run, DataError for images that are not the run's.
    """
    run = open_run(path)
    durable.require_writable(run.folder)  # before minutes of work
    bundle, (train, val) = open_held_out(run, data, device, "train", "val")
    assert train.labels is not None
    assert val.labels is not None
    source = find_source(run, data)
    ids = {name: _ids(images, name, source, run.recipe.data) for name, images in (("train", train), ("val", val))}
    started = time.perf_counter()
    logits = bundle.logits(val)
    rate = len(val) / (time.perf_counter() - started)
    probs, labels, names = softmax(logits), val.labels, bundle.class_names
    value: dict[str, Any] = {"format": "resfit-evaluation-1", "split": "val", "fingerprint": val.fingerprint}
    value |= score(logits, labels, names) | how_scored(run) | {"class_names": list(names)}
    value["confusion"] = confusion(probs.argmax(1), labels, len(names)).tolist()
    mistakes = confident_mistakes(probs, labels)
    value["mistakes"] = [
        _row(row, ids["val"], probs, labels) | {"confidence": float(probs[row].max())} for row in mistakes
    ]
    value["calibration"] = calibration(logits, labels, val.keys)
    value["selective"] = selective(probs, labels)
    value["corruptions"] = _corruptions(bundle, val, logits, rate, say)
    say(f"looking for images of val ({len(val):,}) that are in train ({len(train):,}) too")
    value["duplicates"] = _duplicates(find_duplicates(val.images, train.images), ids, val, train, probs)
    counts = {"train": balance(train.labels, names), "val": balance(labels, names)}
    fewest = min(counts["train"].values())
    value["balance"] = counts | {"ratio": max(counts["train"].values()) / fewest if fewest else None}
    value["suspicious"] = [
        _row(row, ids["val"], probs, labels) | {"score": float(probs[row, labels[row]])}
        for row in suspicious(probs, labels)
    ]
    value["label_issues"] = int(label_issues(probs, labels).sum())
    durable.write_json(run.evaluation_file, value)
    write_card(run)  # it shows some of it
    return value


def _ids(images: ImageSet, split: str, source: str | Path, how: Data) -> list[str]:
    """Return the images' ids: paths below the source, or row numbers in what the source brings."""
    if images.ids is not None:
        return list(images.ids)
    found = [name for name, _, where in split_manifest(source, how.val_fraction, how.group_by) if where == split]
    assert len(found) == len(images)
    return found


def _row(row: int, ids: list[str], probs: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    return {"id": ids[row], "row": int(row), "label": int(labels[row]), "predicted": int(probs[row].argmax())}


def _corruptions(bundle: Bundle, val: ImageSet, logits: np.ndarray, rate: float, say: Say) -> dict[str, Any]:
    """Return the accuracy under each corruption at each strength, beside that on the same images as they are."""
    assert val.labels is not None
    chosen = np.sort(np.argsort(val.keys, kind="stable")[:CORRUPTED])
    images, keys, labels = np.asarray(val.images[chosen]), val.keys[chosen], val.labels[chosen]
    passes = len(CORRUPTIONS) * len(STRENGTHS)
    minutes = passes * len(chosen) / rate / 60
    say(f"predicting {len(chosen):,} images under {passes} corruptions: about {minutes:.1f} min")
    rows = [
        {
            "name": name,
            "strength": strength,
            "accuracy": float((bundle.logits(corrupt(images, keys, name, strength)).argmax(1) == labels).mean()),
        }
        for name in CORRUPTIONS
        for strength in STRENGTHS
    ]
    clean = float((logits[chosen].argmax(1) == labels).mean())
    return {"n": len(chosen), "clean": clean, "mean": float(np.mean([row["accuracy"] for row in rows])), "rows": rows}


def _duplicates(
    found: Duplicates, ids: dict[str, list[str]], val: ImageSet, train: ImageSet, probs: np.ndarray
) -> dict[str, Any]:
    """Return how many images of val are in train too, the closest pairs, and the accuracy without these images."""
    assert val.labels is not None
    assert train.labels is not None
    pairs = [
        {
            "val": ids["val"][row],
            "row": int(row),
            "train": ids["train"][other],
            "train_row": int(other),
            "distance": float(distance),
            "same_label": bool(val.labels[row] == train.labels[other]),
        }
        for row, other, distance in zip(found.queries, found.references, found.distances, strict=True)
    ]
    exact = found.distances == 0
    right = np.delete(probs.argmax(1) == val.labels, found.queries)
    without = {"n": len(right), "accuracy": float(right.mean()) if len(right) else None}
    return {
        "exact": int(exact.sum()),
        "near": int((~exact).sum()),
        "pairs": pairs[:PAIRS],
        "accuracy_without": without | {"interval": list(wilson_interval(int(right.sum()), len(right)))},
    }
