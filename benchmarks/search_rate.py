"""Trials an hour of `resfit search` with one worker and with two, and what the engine takes of a trial; prints JSON.

    python benchmarks/search_rate.py DATA [--trials 12] [--repeats 3]

The space `small` at 16 pixels, one epoch of 5,000 images, no pruning, random points; the two in alternation, each
search new. A trial's overhead is what lies between the end of one training and the start of the next one in the same worker,
and what a trial takes beyond its training: drawing, counting, the database, building, evaluation, files.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data.images import PixelRule
from resfit.data.sources import load_splits
from resfit.study.launch import search
from resfit.study.space import load_space
from resfit.study.trials import finished, open_study
from result import show

SETTINGS = (
    "data.image_size=16",
    "train.epochs=1",
    "search.sampler=random",
    "search.pruning=none",
    "search.finalists=1",
    "search.seeds=1",
)
IMAGES = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = smaller(a.data, Path(folder) / "data.npz")
        found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for repeat, workers in itertools.product(range(a.repeats), found):
            found[workers].append(measure(data, Path(folder) / f"{repeat}-{workers}", a.trials, workers))
    two, one = ([run["trials_per_hour"] for run in found[workers]] for workers in (2, 1))
    show(
        "trials an hour of `search` with two workers",
        two,
        None,
        data=f"cifar10-jpeg, {IMAGES:,} images of 16 pixels, one epoch",
        digits=1,
        peer="with one worker",
        peer_values=one,
        trials=a.trials,
        overhead_seconds={
            str(workers): round(statistics.median(run["overhead"] for run in runs), 3)
            for workers, runs in found.items()
        },
        train_seconds={
            str(workers): round(statistics.median(run["training"] for run in runs), 3)
            for workers, runs in found.items()
        },
        start_seconds={
            str(workers): round(statistics.median(run["start"] for run in runs), 2) for workers, runs in found.items()
        },
    )


def smaller(source: str, file: Path) -> Path:
    """Write some of the training images, so that a trial is short."""
    (images,) = load_splits(source, ("train",), PixelRule(16))
    assert images.labels is not None
    rows = np.linspace(0, len(images) - 1, IMAGES).astype(np.int64)
    np.savez(file, images=images.images[rows].transpose(0, 2, 3, 1), labels=images.labels[rows])
    return file


def measure(data: Path, out: Path, trials: int, workers: int) -> dict[str, float]:
    begun = time.time()
    search("small", data, trials=trials, out=out, workers=workers, settings=SETTINGS)
    space, plan = load_space("small", SETTINGS), json.loads((out / "search.json").read_text())
    same = {"space": space.text(), "data": plan["fingerprint"]}
    with open_study(f"sqlite:///{out}/study.db", space.name, same, space.search) as study:
        ended: list[Any] = list(finished(study).values())
    first, last = min(t.datetime_start for t in ended), max(t.datetime_complete for t in ended)
    seconds = (last - first).total_seconds()
    training = [t.user_attrs["seconds"] for t in ended]
    return {
        "trials_per_hour": 3600 * len(ended) / seconds,
        "training": statistics.mean(training),
        "overhead": workers * seconds / len(ended) - statistics.mean(training),
        "start": first.timestamp() - begun,
    }


if __name__ == "__main__":
    main()
