"""Predictions for images without labels: the mean of one or several networks, the competition CSV, and a look for drift."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from resfit.budget import Budget, Verdict, check_budget
from resfit.data.unlabelled import list_unlabelled
from resfit.errors import DataError, UsageError
from resfit.escaping import csv_text, json_text
from resfit.evaluation.config import BundleConfig, read_config
from resfit.evaluation.metrics import drift, softmax
from resfit.evaluation.onnxstream import onnx_logits
from resfit.models.cost import Cost
from resfit.models.families import cost

HEADER = ("ID", "Labels")


@dataclass(frozen=True)
class Answers:
    """Predictions for N images: ids, probs float32 (N, K), labels (N,) int64, and what to say of them.

    val_probs are the runs' mean on the validation split that they share, or None; warnings say how these images differ;
    header is the CSV's.
    """

    ids: tuple[str, ...]
    probs: np.ndarray
    class_names: tuple[str, ...]
    verdict: Verdict
    val_probs: np.ndarray | None
    warnings: tuple[str, ...]
    header: tuple[str, str] = HEADER

    @property
    def labels(self) -> np.ndarray:
        """The most probable class of each image, (N,) int64."""
        return np.asarray(self.probs.argmax(1))


def predict(runs: Sequence[str | Path], paths: Sequence[str | Path], device: str = "auto") -> Answers:
    """Predict images in files, folders, npz or the competition pickle, in input order, by the mean of the runs' probs.

    "-" is an image on stdin. On a CPU ONNX Runtime answers where each bundle has a model.onnx of its own weights, equal to
    torch within the bound of `shipping.gate` and faster; else torch does.
    Raises UsageError when the runs know different classes, DataError for images that cannot be read.
    """
    configs = [read_config(run) for run in runs]
    names = configs[0].class_names
    for run, config in zip(runs, configs, strict=True):
        if config.class_names != names:
            raise UsageError(f"{run}: knows other classes than {runs[0]}. Average runs of the same classes.")
    listings = list_unlabelled(paths)
    found = onnx_logits(listings, configs, device)
    if found is None:
        from resfit.evaluation.bundle import load_bundle  # torch's import takes seconds
        from resfit.evaluation.stream import stream_logits

        found = stream_logits(listings, [load_bundle(run, device) for run in runs])
    ids = tuple(name for listing in listings for name in listing.ids or ())
    mean = np.mean([softmax(logits) for logits in found], axis=0)
    val = _val_probs([Path(run) for run in runs])
    warnings = drift(mean, val) if val is not None else []
    return Answers(ids, mean, names, summed_verdict(configs), val, tuple(warnings))


def summed_verdict(bundles: Sequence[BundleConfig]) -> Verdict:
    """Compare the summed cost of networks that answer together with the first one's budget."""
    costs = [cost(bundle.spec) for bundle in bundles]
    total = Cost(
        sum(c.params for c in costs),
        sum(c.macs for c in costs),
        sum(c.activations for c in costs),
        costs[0].inputs,
        max(c.peak for c in costs),
    )
    return check_budget(total, Budget(**bundles[0].values["budget"]))


def to_csv(answers: Answers, names: bool = False) -> str:
    """Return the CSV text: the header and one row an image, with class indices or, on request, names."""
    shown = [answers.class_names[label] if names else label for label in answers.labels]
    return csv_text([answers.header, *zip(answers.ids, shown, strict=True)])


def ranked(answers: Answers, top: int | None = None) -> list[list[tuple[int, float]]]:
    """Return each image's `top` most probable classes (all without it), and their probs, the most probable first."""
    order = np.argsort(-answers.probs, axis=1, kind="stable")[:, :top]
    probs = np.take_along_axis(answers.probs, order, 1).astype(float).round(6)
    return [list(zip(*row, strict=True)) for row in zip(order.tolist(), probs.tolist(), strict=True)]


def to_jsonl(answers: Answers, top: int | None = None) -> str:
    """Return a line of JSON an image: `id`, `label`, `index` and `score` of its class, `probabilities` by class.

    These are all, or the `top` most probable, the most probable first, to six decimals.
    """
    lines = []
    for name, row in zip(answers.ids, ranked(answers, top), strict=True):
        (index, score), names = row[0], answers.class_names
        value = {"id": name, "label": names[index], "index": index, "score": score}
        lines.append(json_text(value | {"probabilities": {names[k]: p for k, p in row}}, None) + "\n")
    return "".join(lines)


def describe(answers: Answers) -> dict[str, Any]:
    """Return n, verdict, warnings, and the predicted classes' shares and the mean confidence, beside val's where known."""

    def shares(probs: np.ndarray) -> dict[str, float]:
        labels = probs.argmax(1)
        return {name: round(float((labels == k).mean()), 4) for k, name in enumerate(answers.class_names)}

    value = {"n": len(answers.ids), "budget": answers.verdict.text, "within_budget": answers.verdict.ok}
    value |= {"class_shares": shares(answers.probs), "confidence": round(float(answers.probs.max(1).mean()), 4)}
    if answers.val_probs is not None:
        value["val"] = {
            "class_shares": shares(answers.val_probs),
            "confidence": round(float(answers.val_probs.max(1).mean()), 4),
        }
    return value | {"warnings": list(answers.warnings)}


def _places(ids: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    """Return where each image is, by its id as `wanted` writes it: whole, as a file's name, or as that without its suffix."""
    forms = [list(ids), [Path(name).name for name in ids], [Path(name).stem for name in ids]]
    for names in forms:
        if len(set(names)) == len(names) and set(wanted) <= set(names):
            return {name: place for place, name in enumerate(names)}
    return {name: place for place, name in enumerate(ids)}


def follow_sample(answers: Answers, sample: Path) -> Answers:
    """Return the answers in the order, and under the header, of a competition's sample submission.

    Raises DataError unless the sample has two columns and names every image once.
    """
    try:
        with sample.open(newline="", encoding="utf-8-sig") as file:
            rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{sample}: cannot be read as CSV: {error}. Name the competition's sample file.") from error
    places = _places(answers.ids, [row[0] for _, row in rows[1:]])
    if not rows or len(rows[0][1]) != 2 or rows[0][1][0] in places:
        found = ",".join(rows[0][1])[:60] if rows else "nothing"
        raise DataError(f"{sample}: its first line is {found}, not a header of two names. Is it the right sample?")
    order: list[int] = []
    for line, (name, *_) in rows[1:]:
        if name not in places:
            raise DataError(
                f"{sample}: line {line} has id {name!r}, which is no image of ours, or a second time. Ours are such as "
                f"{answers.ids[0]!r}."
            )
        order.append(places.pop(name))
    if places:
        raise DataError(f"{sample}: does not have id {next(iter(places))!r} of our images. Predict the same images.")
    header = (rows[0][1][0], rows[0][1][1])
    return replace(answers, ids=tuple(row[0] for _, row in rows[1:]), probs=answers.probs[order], header=header)


def _val_probs(runs: Sequence[Path]) -> np.ndarray | None:
    """Return the runs' mean probs on their validation split, or None where one has none or another split."""
    found = []
    for run in runs:
        files = [folder / "predictions" / "val.npz" for folder in (run, run.parent)]  # a bundle lies inside its run
        file = next((file for file in files if file.exists()), None)
        if file is None:
            return None
        with np.load(file, allow_pickle=False) as arrays:
            found.append((arrays["keys"], arrays["probs"]))
    if any(not np.array_equal(keys, found[0][0]) for keys, _ in found):
        return None
    return np.asarray(np.mean([probs for _, probs in found], axis=0))
