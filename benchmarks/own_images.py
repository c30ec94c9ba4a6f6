"""What the means for one's own images bring: fit rules, class weights, starting weights; prints one JSON object each.

    python benchmarks/own_images.py DATA --what resize|class-weights|init --work DIR [--seeds 3] [--out results]

DATA is CIFAR-10. All train one small network by `default`, with a rate and a length that were fixed before the first run, and
are scored on a validation split that has as many images of each class; the test split is not read.

resize: 4,000 training images enlarged to 96 pixels, on frames of grey noise twice as wide or as high, the picture in the
middle ("centred") or anywhere along it ("anywhere"), read at 96 pixels.
class-weights: a long tail, 2,000 images of the first class to 40 of the last. init: five of the
classes with 10, 50 and 200 images each, from the seed's weights or from a bundle trained on the five others. What DIR holds is
kept: a finished training is not repeated.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resfit.data.images import ImageSet, PixelRule
from resfit.data.sources import load_splits
from resfit.evaluation.metrics import difference_interval, mean_interval
from resfit.training.launch import train
from result import keep, show

NETWORK = "resnet:widths=16,32,64:blocks_per_stage=1,1,1"
SIDE, IMAGES, VAL = 96, 4_000, 2_000
PER_CLASS, FEW = (10, 50, 200), 40
Score = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--what", choices=("resize", "class-weights", "init"), required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    train_set, val_set = load_splits(a.data, ("train", "val"), PixelRule(32))
    measure = {"resize": resize, "class-weights": class_weights, "init": init}[a.what]
    measure(a, train_set, val_set)


def resize(a: argparse.Namespace, train_set: ImageSet, val_set: ImageSet) -> None:
    """Train on framed images by each rule."""
    settings = [f"data.image_size={SIDE}", "train.epochs=8", "optim.lr=0.1"]
    sides: dict[str, list[Score]] = {}
    for frame in ("centred", "anywhere"):
        folder = a.work / f"framed-{frame}"
        if not (folder / "done").exists():
            for split, images, count in (("train", train_set, IMAGES), ("val", val_set, VAL)):
                write_framed(folder / split, per_class(images, count // 10), frame)
            (folder / "done").touch()
    for seed, frame, rule in ((s, f, r) for s in range(a.seeds) for f in ("centred", "anywhere") for r in RULES):
        name = f"{frame}, {rule}"
        done = trained(a, name, seed, a.work / f"framed-{frame}", [*settings, f"data.resize={rule}"])
        sides.setdefault(name, []).append(done)
    report(
        a, "resize", "centred, crop", sides, "accuracy", f"{IMAGES:,} images enlarged, on frames of 2:1, {SIDE} pixels"
    )


RULES = ("squash", "crop", "pad")


def class_weights(a: argparse.Namespace, train_set: ImageSet, val_set: ImageSet) -> None:
    """Train on a long tail without and with weights."""
    file, sides = a.work / "tail.npz", dict[str, list[Score]]()
    if not file.exists():
        counts = [round(2_000 * (FEW / 2_000) ** (label / 9)) for label in range(10)]
        assert train_set.labels is not None
        rows = [np.flatnonzero(train_set.labels == label)[:count] for label, count in enumerate(counts)]
        write_npz(file, train_set.take(np.concatenate(rows)), per_class(val_set, VAL // 10))
    for seed in range(a.seeds):
        for weights in ("none", "balanced"):
            settings = ["train.epochs=10", "optim.lr=0.1", f"train.class_weights={weights}"]
            sides.setdefault(weights, []).append(trained(a, weights, seed, file, settings))
    report(a, "class_weights", "balanced", sides, "balanced_accuracy", f"a long tail, 2,000 to {FEW} images a class")


def init(a: argparse.Namespace, train_set: ImageSet, val_set: ImageSet) -> None:
    """Train on few images of five classes, from the seed's weights and from those of the five others."""
    sides = dict[str, list[Score]]()
    first = a.work / "first.npz"
    if not first.exists():
        write_npz(first, of_classes(train_set, range(5)), of_classes(val_set, range(5)))
    bundle = a.work / "first"
    if not (bundle / "summary.json").exists():
        train("default", first, bundle, device="cpu", settings=[f"network={NETWORK}", "train.epochs=8"])
    for count in PER_CLASS:
        file = a.work / f"few-{count}.npz"
        if not file.exists():
            write_npz(file, per_class(of_classes(train_set, range(5, 10)), count), of_classes(val_set, range(5, 10)))
        epochs = 4_000 // (5 * count)  # as many images seen, but for the most
        for seed in range(a.seeds):
            for name, more in (("seed", []), ("init", [f"init={bundle}"])):
                settings = [f"train.epochs={max(20, epochs)}", f"train.batch_size={min(64, 5 * count // 2)}"]
                settings += ["train.validate_every=5", "optim.lr=0.05", *more]
                side = f"{count} a class, {name}"
                sides.setdefault(side, []).append(trained(a, side, seed, file, settings))
    report(a, "init", f"{PER_CLASS[0]} a class, init", sides, "accuracy", "five classes of few images, 32 pixels")


def trained(a: argparse.Namespace, side: str, seed: int, data: Path, settings: list[str]) -> Score:
    """Return the score on val of a training, made now or kept."""
    folder = a.work / "runs" / f"{a.what}-{side.replace(', ', '-').replace(' ', '-')}-{seed}"
    if not (folder / "summary.json").exists():
        train("default", data, folder, seed=seed, device="cpu", settings=[f"network={NETWORK}", *settings])
    score: Score = json.loads((folder / "summary.json").read_text())["val"]
    return score


def report(a: argparse.Namespace, name: str, ours: str, sides: dict[str, list[Score]], key: str, data: str) -> None:
    values = {side: [score[key] for score in scores] for side, scores in sides.items()}
    value = show(
        f"val {key.replace('_', ' ')} by {a.what}: {ours}",
        values[ours],
        None,
        data=f"cifar10-jpeg: {data}; {NETWORK}",
        digits=4,
        sides={side: mean_interval(found) for side, found in values.items()},
        differences=dict(differences(values)),
        scores={side: [[score["accuracy"], score["macro_f1"]] for score in scores] for side, scores in sides.items()},
    )
    keep(a.out, f"own_images_{name}", value)


def differences(values: dict[str, list[float]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each pair of sides with the difference of their means, the larger first."""
    order = sorted(values, key=lambda side: -statistics.mean(values[side]))
    for number, left in enumerate(order):
        for right in order[number + 1 :]:
            yield f"{left} - {right}", difference_interval(values[left], values[right])


def per_class(images: ImageSet, count: int) -> ImageSet:
    """Return the first `count` images of each class that has any."""
    labels = images.labels
    assert labels is not None
    return images.take(
        np.sort(np.concatenate([np.flatnonzero(labels == label)[:count] for label in np.unique(labels)]))
    )


def of_classes(images: ImageSet, classes: range) -> ImageSet:
    assert images.labels is not None
    return images.take(np.flatnonzero(np.isin(images.labels, list(classes))))


def write_npz(file: Path, train_set: ImageSet, val_set: ImageSet) -> None:
    arrays: dict[str, Any] = {}
    assert train_set.labels is not None
    for split, images in (("train", train_set), ("val", val_set)):
        arrays |= {f"{split}_images": images.images[:], f"{split}_labels": images.labels - train_set.labels.min()}
    np.savez(file, **arrays)


def write_framed(folder: Path, images: ImageSet, frame: str) -> None:
    """Write images as JPEGs twice as wide or as high as SIDE: grey noise, and the enlarged picture somewhere along it."""
    assert images.labels is not None
    draw = np.random.default_rng(0)
    place: Callable[[], int] = (lambda: SIDE // 2) if frame == "centred" else (lambda: int(draw.integers(0, SIDE + 1)))
    for number, (pixels, label) in enumerate(zip(images.images[:], images.labels, strict=True)):
        canvas = draw.integers(96, 160, (SIDE, 2 * SIDE, 1)).astype(np.uint8).repeat(3, 2)
        start = place()
        wide = number % 2 == 0
        small = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
        picture = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        canvas[:, start : start + SIDE] = picture if wide else picture.transpose(1, 0, 2)
        file = folder / images.class_names[label] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(canvas if wide else np.ascontiguousarray(canvas.transpose(1, 0, 2))).save(file, quality=90)


if __name__ == "__main__":
    main()
