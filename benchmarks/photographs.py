"""A data set of real photographs, cut from those that packages ship; with --train, how well a small network tells them apart.

    python benchmarks/photographs.py FOLDER        writes FOLDER/{train,val,test}/CLASS/*.png, in a second
    python benchmarks/photographs.py FOLDER --train --work DIR [--seeds 3] [--out results]       also prints one JSON object

A class is a photograph, 500 pixels wide or more, that lies in the wheel of scikit-image or scikit-learn. Scipy's, and most
of scikit-image's, are downloads, and left out; of the motorcycle's two views one is taken. A photograph is cut from left to
right into a band for train (two fifths of what the gaps leave), one for val and one for test, with gaps as wide as the longest
side of a patch: no pixel is in two splits, nor near another split's. Patches are square, wide and tall; those of val and test
do not overlap, those of train by half. Patches of one flat colour are passed over: they would be one file in two splits.

--train: a network of 78k parameters by `default` at 32 pixels, its epochs fixed before the first run, by each rule of
`data.resize`. The rule is chosen on val; the seeds of that rule alone are tested, once. What DIR holds is kept: a finished
training is not repeated. About 6 minutes of one core.
"""

import argparse
import importlib.util
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

SHIPPED = {
    "skimage/data": "astronaut brick camera coffee grass gravel hubble_deep_field ihc moon motorcycle_left retina rocket",
    "sklearn/datasets/images": "china flower",
}
SHAPES = ((48, 48), (72, 36), (36, 72))  # width, height in pixels; rows of each, from the top down
GAP = max(itertools.chain(*SHAPES))
SHARES = {"train": 0.4, "val": 0.3, "test": 0.3}  # of the width that two gaps leave
MOST = {"train": 60, "val": 24, "test": 24}  # patches of a photograph
FLAT = 16  # of 255 levels: the black around the retina
Box = tuple[int, int, int, int]  # left, top, right, bottom

NETWORK = "resnet:widths=16,32,64:blocks_per_stage=1,1,1"
SETTINGS = [f"network={NETWORK}", "data.image_size=32", "train.epochs=20", "train.batch_size=32", "optim.lr=0.05"]
RULES = ("squash", "crop", "pad")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--work", type=Path, help="where the runs go")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    found = photographs()
    if not a.folder.exists():
        counts = write_patches(a.folder, found)
        print(f"{a.folder}: {len(found)} classes; {json.dumps(counts)} images", file=sys.stderr)
    if a.train:
        if a.work is None or len(found) < sum(len(names.split()) for names in SHIPPED.values()):
            parser.error("--train needs --work DIR, and all photographs: pip install scikit-image scikit-learn")
        measure(a.folder, a.work, a.seeds, a.out)


def photographs() -> dict[str, Path]:
    """Return the photographs that are installed, by name; a line on stderr names a package that is not. None is downloaded."""
    found: dict[str, Path] = {}
    for place, names in SHIPPED.items():
        package, *inside = place.split("/")
        spec = importlib.util.find_spec(package)  # imports nothing
        if spec is None or not spec.submodule_search_locations:
            print(f"{package} is not installed: its photographs are left out", file=sys.stderr)
            continue
        folder = Path(spec.submodule_search_locations[0], *inside)
        found |= {name: next(folder.glob(f"{name}.*")) for name in names.split()}
    return found


def write_patches(folder: Path, found: dict[str, Path]) -> dict[str, int]:
    """Write folder/SPLIT/CLASS/LEFT-TOP-WIDTHxHEIGHT.png, in the photograph's own mode; return the images of each split."""
    counts = dict.fromkeys(SHARES, 0)
    for name, file in found.items():
        with Image.open(file) as photograph:
            for split, (left, right) in bands(photograph.width).items():
                boxes = tiles(left, right, photograph.height, 2 if split == "train" else 1)
                shown = [box for box in boxes if not flat(photograph.crop(box))]
                for box in spread(shown, MOST[split]):
                    patch = photograph.crop(box)
                    place = folder / split / name / f"{box[0]}-{box[1]}-{patch.width}x{patch.height}.png"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    patch.save(place)
                    counts[split] += 1
    return counts


def bands(width: int) -> dict[str, tuple[int, int]]:
    """Return the columns of each split, [first, past the last), with gaps between."""
    left, found = 0, dict[str, tuple[int, int]]()
    for split, share in SHARES.items():
        found[split] = (left, left + int(share * (width - 2 * GAP)))
        left = found[split][1] + GAP
    return found


def tiles(left: int, right: int, height: int, a_side: int) -> Iterator[Box]:
    """Yield patches row by row, the shapes in turn; `a_side` of them begin in the width, and in the height, of one."""
    top = 0
    for wide, high in itertools.cycle(SHAPES):
        if top + high > height:
            return
        for x in range(left, right - wide + 1, wide // a_side):
            yield x, top, x + wide, top + high
        top += high // a_side


def flat(patch: Image.Image) -> bool:
    """Return whether no channel has two levels that are more than FLAT apart."""
    extrema: Any = patch.convert("RGB").getextrema()
    return all(high - low <= FLAT for low, high in extrema)


def spread(boxes: list[Box], most: int) -> list[Box]:
    """Return at most so many of them, evenly spaced."""
    count = min(most, len(boxes))
    return [boxes[i * len(boxes) // count] for i in range(count)]


def measure(folder: Path, work: Path, seeds: int, out: Path | None) -> None:
    """Train by each rule, choose one on val, test its seeds, and print the result."""
    import resfit
    from resfit.evaluation.metrics import mean_interval
    from result import keep, show

    val: dict[str, dict[str, Any]] = {}
    for rule in RULES:
        settings = [*SETTINGS, f"data.resize={rule}"]
        made = resfit.train_seeds("default", folder, work / rule, seeds=seeds, device="cpu", settings=settings)
        val[rule] = made.summary["val_accuracy"]
    chosen = max(RULES, key=lambda rule: val[rule]["mean"])
    runs = [work / chosen / f"seed-{seed}" for seed in range(seeds)]
    scores = [resfit.test(run, device="cpu") for run in runs]
    accuracies = [score["accuracy"] for score in scores]
    images = {split: len(list((folder / split).rglob("*.png"))) for split in SHARES}
    largest = max(len(list(place.iterdir())) for place in (folder / "test").iterdir())
    value = show(
        f"test accuracy on patches of photographs, resize={chosen} (chosen on val)",
        accuracies,
        None,
        data=f"{len(scores[0]['classes'])} photographs from scikit-image and scikit-learn, split by region; {NETWORK}",
        digits=4,
        mean=mean_interval(accuracies),
        balanced_accuracy=round(statistics.median(score["balanced_accuracy"] for score in scores), 4),
        largest_class=round(largest / images["test"], 4),  # what always answering it scores
        images=images,
        params=scores[0]["params"],
        val=val,
        by_class={
            name: round(statistics.mean(score["classes"][name]["accuracy"] for score in scores), 4)
            for name in scores[0]["classes"]
        },
        openings=[score["opening"] for score in scores],
    )
    keep(out, "photographs", value)


if __name__ == "__main__":
    main()
