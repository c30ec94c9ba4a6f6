"""What share of CIFAR-10's test images has a near-duplicate in train, and how long finding them takes; prints one JSON object.

Usage: python benchmarks/near_duplicates.py FOLDER_OR_NAME [--sheet FILE.png]. Images only are read: no network, no score.
Beside: the pairs that Barz and Denzler (arXiv 1902.00423) judged by eye and list at github.com/cvjena/cifair,
meta/duplicates_cifar10.csv: 286 test images with one in train (249 near-duplicates, 37 very similar; none exact). `--sheet`
draws some of the pairs, evenly spaced by distance, to be judged by eye.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image

from resfit.data import duplicates
from resfit.data.images import ImageSet, PixelRule
from resfit.data.sources import load_splits
from result import keep, show

LISTED = 286


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--sheet", type=Path, help="draw pairs here")
    parser.add_argument("--out", type=Path, help="folder to keep the result in")
    options = parser.parse_args()
    train, test = load_splits(options.source, ("trainval", "test"), PixelRule(32))
    started, used = time.perf_counter(), time.process_time()
    found = duplicates.find_duplicates(test.images, train.images)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    assert train.labels is not None
    assert test.labels is not None
    same = train.labels[found.references] == test.labels[found.queries]
    if options.sheet:
        draw(found, test, train, options.sheet)
    value = show(
        "share of CIFAR-10's test images with a near-duplicate in train, found in pixels",
        [len(found.queries) / len(test)],
        None,
        data=test.source,
        digits=4,
        peer="pairs judged by eye, listed by Barz and Denzler (arXiv 1902.00423)",
        peer_values=[LISTED / 10_000],
        images=[len(test), len(train)],
        found=len(found.queries),
        exact=int((found.distances == 0).sum()),
        same_label=int(same.sum()),
        threshold=duplicates.NEAR,
        found_up_to={f"{bound:.2f}": int((found.distances <= bound).sum()) for bound in np.arange(0.01, 0.16, 0.02)},
        seconds=round(seconds, 1),
        cpu_seconds=round(used, 1),
    )
    keep(options.out, "near_duplicates", value)


def draw(found: duplicates.Duplicates, test: ImageSet, train: ImageSet, file: Path, columns: int = 12) -> None:
    chosen = np.linspace(0, len(found.queries) - 1, min(columns * 12, len(found.queries))).astype(int)
    gap = np.full((3, 32, 6), 255, np.uint8)
    tiles = [
        np.concatenate([test.images[found.queries[[i]]][0], train.images[found.references[[i]]][0], gap], 2)
        for i in chosen
    ]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], 2) for i in range(0, len(tiles), columns)]
    sheet = Image.fromarray(np.concatenate(rows, 1).transpose(1, 2, 0))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(file)


if __name__ == "__main__":
    main()
