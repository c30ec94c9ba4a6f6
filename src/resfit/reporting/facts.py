"""What a run folder says of its run, read once for a report. No torch, and no image is read.

Test accuracy comes only from the receipt of `resfit test`; nothing here opens a split.
"""

import json
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from resfit.errors import ResfitError, UsageError
from resfit.evaluation.metrics import mean_interval
from resfit.models.cost import Cost
from resfit.models.families import cost
from resfit.recipe import Recipe
from resfit.runs import Run, open_run, seed_runs

FORMAT = "resfit-evaluation-1"  # of evaluation.json
MISTAKES = 24  # shown, as `resfit evaluate --full` keeps


@dataclass(frozen=True)
class Facts:
    """A finished run: `name` is how the report calls it, the rest is what its files hold; None where a file is not there."""

    run: Run
    name: str
    recipe: Recipe
    info: dict[str, Any]
    summary: dict[str, Any]
    receipt: dict[str, Any] | None
    evaluation: dict[str, Any] | None

    @property
    def refit(self) -> bool:
        """Whether it was trained on train + val, so that nothing is held out."""
        return bool(self.info["refit"])

    @cached_property
    def cost(self) -> Cost:
        """The closed-form cost of its network."""
        return cost(self.recipe.network)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes, in the order of the labels."""
        return list(self.info["class_names"])

    @cached_property
    def scores(self) -> dict[str, dict[str, Any]]:
        """The score by split, "test" first: of the receipt, and of the summary. No split that was not scored."""
        val, how = self.summary["val"], {key: self.summary.get(key, 1.0) for key in HOW}
        found = {"test": self.receipt, "val": val and val | how}
        return {split: score for split, score in found.items() if score}

    @cached_property
    def held_out(self) -> dict[str, Any] | None:
        """`confusion` and `mistakes` in the form of evaluation.json: from there, else counted from the predictions on val."""
        if self.evaluation is not None:
            return self.evaluation
        file = self.run.folder / "predictions" / "val.npz"
        if not file.is_file() or self.refit:
            return None
        try:
            with np.load(file) as arrays:
                return count(arrays["probs"], arrays["labels"], len(self.class_names))
        except (OSError, ValueError, LookupError, zipfile.BadZipFile) as error:
            raise UsageError(f"{file}: cannot be read ({error}). Is the run folder whole?") from error


HOW = ("train_images", "weights", "tta_views", "tta_below")


@dataclass(frozen=True)
class Group:
    """What one argument names: a run, or the parent of several seeds with their runs."""

    folder: Path
    name: str
    runs: tuple[Facts, ...]
    seeds: bool

    def over_seeds(self, split: str) -> dict[str, Any] | None:
        """Return mean, std, t-interval and n of the seeds' accuracies on a split; None where one was not scored on it."""
        scores = [facts.scores[split]["accuracy"] for facts in self.runs if split in facts.scores]
        return mean_interval(scores) if len(scores) == len(self.runs) else None


def read_groups(paths: list[Path]) -> list[Group]:
    """Read runs and parents of seeds; raises UsageError where one is none, has not finished, or is named twice."""
    found: dict[Path, Path] = {}
    groups = []
    for path, name in zip(paths, _names(paths), strict=True):
        runs = seed_runs(path) or [open_run(path)]
        for run in runs:
            place = run.folder.resolve()
            if place in found:
                raise UsageError(f"{path}: is named twice, or belongs to {found[place]}. Name each run once.")
            found[place] = path
        seeds = runs[0].folder != path
        facts = tuple(_read(run, f"{name}, seed {run.info.get('seed')}" if seeds else name) for run in runs)
        groups.append(Group(path, name, facts, seeds))
    return groups


def _names(paths: list[Path]) -> list[str]:
    """Return each folder's name, with as much of its path before it as tells it from the others."""
    places = [path.resolve() for path in paths]
    names = [place.name for place in places]
    for parts in range(2, 1 + max(len(place.parts) for place in places)):
        names = [
            "/".join(place.parts[-parts:]) if names.count(name) > 1 else name
            for name, place in zip(names, places, strict=True)
        ]
    return names


def _read(run: Run, name: str) -> Facts:
    summary, info = run.summary, run.info
    try:
        receipt = _json(run.receipt_file)
        evaluation = _json(run.folder / "evaluation.json")
        if evaluation is not None and evaluation.get("format") != FORMAT:
            raise UsageError(
                f"{run.folder / 'evaluation.json'}: is not of the format {FORMAT}. "
                f"Write it anew: resfit evaluate {run.folder} --full."
            )
        if evaluation is not None and evaluation.get("fingerprint", info["data"]["val"]) != info["data"]["val"]:
            raise UsageError(
                f"{run.folder / 'evaluation.json'}: is of other images than the run's val split. "
                f"Write it anew: resfit evaluate {run.folder} --full."
            )
        facts = Facts(run, name, run.recipe, info, summary, receipt, evaluation)
        _ = facts.scores, facts.refit, facts.class_names
    except (LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{run.folder}: lacks what a report needs ({error!r}). Is the run folder whole?") from error
    return facts


def _json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}). Is the run folder whole?") from error
    return value


def count(probs: np.ndarray, labels: np.ndarray, classes: int) -> dict[str, Any]:
    """Return `confusion` (rows true, columns predicted) and the most confident `mistakes` of probs (N, K), labels (N,)."""
    predicted, confidence = probs.argmax(1), probs.max(1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    mistakes = [
        {"id": f"image {row} of val", "row": int(row), "label": int(labels[row]), "predicted": int(predicted[row])}
        | {"confidence": float(confidence[row])}
        for row in worst
    ]
    return {"confusion": confusion.tolist(), "mistakes": mistakes}


def exports(run: Run) -> list[dict[str, Any]]:
    """Return each exported file: name, bytes, and `config`, what it says of itself; None where that cannot be read here."""
    found = []
    for file in sorted(run.folder.glob("export/model*")):
        if file.suffix in (".onnx", ".pt2", ".safetensors"):
            found.append({"name": file.name, "bytes": file.stat().st_size, "config": _config(file)})
    return found


def _config(file: Path) -> dict[str, Any] | None:
    """Return the metadata `resfit` of an export, None where its reader is not installed or the file is damaged."""
    try:
        if file.suffix == ".onnx":
            from resfit.evaluation.runtime import load_onnx

            return load_onnx(file).config
        if file.suffix == ".safetensors":
            with file.open("rb") as tensors:
                metadata = json.loads(tensors.read(int.from_bytes(tensors.read(8), "little")))["__metadata__"]
        else:
            with zipfile.ZipFile(file) as members:
                name = next(name for name in members.namelist() if name.endswith("metadata.json"))
                metadata = json.loads(members.read(name))
        config: dict[str, Any] = json.loads(metadata["resfit"])
    except (ResfitError, OSError, ValueError, LookupError, StopIteration, zipfile.BadZipFile):
        return None
    return config
