"""The curves of runs and of committed results, accuracy and loss by epoch, read and drawn to a file. No torch.

A run's validation split is never its test split, so that "val" is what the reports' figures call test or validation.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resfit import durable
from resfit.charts import Panel, Series, layout
from resfit.drawing import SERIES_LIGHT, to_png, to_svg
from resfit.errors import UsageError
from resfit.runs import open_run, seed_runs

METRICS = {  # panel: its title, its note, and (split, key of a row)
    "accuracy": ("Accuracy", "", (("train", "train_accuracy"), ("val", "val_accuracy"))),
    "loss": ("Loss", "train: as optimised, val: nll", (("train", "train_loss"), ("val", "val_nll"))),
}
KEYS = tuple(key for _, _, curves in METRICS.values() for _, key in curves)

Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """What one argument holds: a name, the path it came from, and for each seed the points (epoch from 1, value) by key."""

    name: str
    path: str
    seeds: tuple[dict[str, Points], ...]

    @property
    def epochs(self) -> int:
        """The last epoch of any seed."""
        return max(epoch for seed in self.seeds for points in seed.values() for epoch, _ in points)

    def mean(self, key: str) -> Points:
        """Return the mean over seeds at the epochs that all of them have."""
        found = [dict(seed[key]) for seed in self.seeds]
        shared = [epoch for epoch in found[0] if all(epoch in points for points in found)]
        return tuple((epoch, math.fsum(points[epoch] for points in found) / len(found)) for epoch in shared)


def draw_curves(paths: Sequence[str | Path], out: str | Path, metric: str | None = None) -> list[Curves]:
    """Draw the curves of runs (or parents of seeds, or result records) into `out`, .svg or .png, and return them.

    `metric` is "accuracy" or "loss"; without it both are drawn. Raises UsageError, and MissingExtraError for a .png
    without matplotlib, before anything is written.
    """
    out = Path(out)
    if out.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"{out}: is neither .svg nor .png. Give -o a name that ends in one of them.")
    if out.is_dir():
        raise UsageError(f"{out}: is a folder. Name a file for -o.")
    if metric is not None and metric not in METRICS:
        raise UsageError(f"{metric}: is no metric. Use {' or '.join(METRICS)}.")
    for path in map(Path, paths):
        if path.exists() and out.exists() and path.samefile(out):
            raise UsageError(f"{out}: is read here, so that writing it would destroy it. Choose another -o.")
    curves = read_curves(paths)
    drawing = layout(panels(curves, [metric] if metric else list(METRICS)), describe(curves))
    if out.suffix.lower() == ".svg":
        durable.write_text(out, to_svg(drawing))
    else:
        durable.write_bytes(out, to_png(drawing))
    return curves


def read_curves(paths: Sequence[str | Path]) -> list[Curves]:
    """Read run folders, parents of seeds and result records; raises UsageError where one has no finished epoch."""
    if len(paths) > len(SERIES_LIGHT):
        raise UsageError(f"{len(paths)} runs: more than {len(SERIES_LIGHT)} colours cannot be told apart. Name fewer.")
    resolved = [Path(path).resolve() for path in paths]
    for path, place in zip(paths, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UsageError(f"{path}: is named twice. Name each run once.")
    found = [_read(Path(path)) for path in paths]
    names = [curves.name for curves in found]
    for parts in range(
        1, 1 + max(len(place.parts) for place in resolved)
    ):  # one name twice: as much of the path as tells
        if len(set(names)) == len(names):
            break
        tails = ["/".join(place.parts[-parts:]) for place in resolved]
        names = [t if names.count(n) > 1 else n for n, t in zip(names, tails, strict=True)]
    return [replace(curves, name=name) for curves, name in zip(found, names, strict=True)]


def panels(curves: Sequence[Curves], metrics: Sequence[str]) -> list[Panel]:
    """Return a panel a metric; of several seeds each is faint and their mean strong."""
    made = []
    for metric in metrics:
        title, note, kinds = METRICS[metric]
        series: list[Series] = []
        for colour, run in enumerate(curves):
            for split, key in kinds:
                series.append(Series(label(run), split, colour, run.mean(key)))
                if len(run.seeds) > 1:
                    series += [Series(label(run), split, colour, seed[key], faint=True) for seed in run.seeds]
        drawn = tuple(one for one in series if one.points)
        if not drawn:
            raise UsageError(f"{curves[0].path}: has no {metric} in any epoch. Draw another metric.")
        made.append(Panel(title, note, drawn, percent=metric == "accuracy"))
    return made


def label(curves: Curves) -> str:
    """Return the name in the legend, with the number of seeds where there are several."""
    return f"{curves.name} (mean of {len(curves.seeds)} seeds)" if len(curves.seeds) > 1 else curves.name


def describe(curves: Sequence[Curves]) -> str:
    """Say in words what the chart shows, for those who do not see it."""
    parts = []
    for run in curves:
        accuracies = run.mean("val_accuracy") or run.mean("train_accuracy")
        split = "val" if run.mean("val_accuracy") else "train"
        text = f"{label(run)}: {run.epochs} epoch{'s' * (run.epochs > 1)}"
        if accuracies:
            epoch, best = max(accuracies, key=lambda point: point[1])
            text += f", highest {split} accuracy {best:.2%} at epoch {epoch}, last {accuracies[-1][1]:.2%}"
        parts.append(text)
    return "; ".join(parts) + ". Train is dashed, val (never the test split) solid."


def _read(path: Path) -> Curves:
    if path.is_file():
        return _read_record(path)
    if not path.exists():
        raise UsageError(f"{path}: does not exist. Name a run folder, e.g. runs/NAME-1, or a result record.")
    runs = seed_runs(path) or [open_run(path)]
    seeds = []
    for run in runs:
        try:
            rows = [(row["epoch"] + 1, row) for row in run.metrics]
            seeds.append({key: _finite((epoch, row.get(key)) for epoch, row in rows) for key in KEYS})
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"{run.metrics_file}: cannot be read ({error}). Is the run folder whole?") from error
    return _checked(path.resolve().name, path, seeds)


def _read_record(path: Path) -> Curves:
    """Read a record of `results/reproduce`: `recipe`, and in `runs` a `curve` of lists, one value an epoch, for each seed."""
    try:
        record = json.loads(path.read_text())
        name, curves = record["recipe"], [run["curve"] for run in record["runs"]]
        seeds = [{key: _finite(enumerate(curve.get(key) or (), 1)) for key in KEYS} for curve in curves]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path}: is no result record with runs and their curves ({reason}). Name another.") from error
    return _checked(str(name), path, seeds)


def _finite(values: Iterable[tuple[int, Any]]) -> Points:
    """Return the points that have a value; an epoch without one (null) leaves a gap that the line bridges."""
    return tuple((epoch, float(value)) for epoch, value in values if value is not None and math.isfinite(value))


def _checked(name: str, path: Path, seeds: Sequence[dict[str, Points]]) -> Curves:
    begun = tuple(seed for seed in seeds if any(seed.values()))
    if not begun:
        raise UsageError(f"{path}: has no finished epoch yet, so there is no curve. Draw it once one is done.")
    for seed in begun:
        for key in ("train_accuracy", "val_accuracy"):
            for epoch, value in seed[key]:
                if not 0 <= value <= 1:
                    raise UsageError(
                        f"{path}: {key} of epoch {epoch} is {value:g}, not from 0 to 1. Give it as a fraction."
                    )
    return Curves(name, str(path), begun)
