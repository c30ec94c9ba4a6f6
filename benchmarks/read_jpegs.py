"""How fast 32-pixel JPEGs become a cached array, beside Pillow in a plain loop; prints one JSON object.

Usage: python benchmarks/read_jpegs.py FOLDER_OR_TAR [--repeats 5]. FOLDER is cifar10-jpeg extracted; a .tar.gz of it is
extracted to a temporary folder first. Both sides read files that the system has in memory already. To keep it short the
Pillow loop takes a fixed tenth of the images; both figures are images a second.
"""

import argparse
import os
import shutil
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from result import show

GOAL = 4  # times Pillow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.source
        if folder.is_file():
            with tarfile.open(folder) as tar:
                tar.extractall(scratch, filter="data")
            folder = Path(scratch)
        paths = sorted(str(p) for p in folder.glob("t*/*/*.jpg"))
        with_pillow(paths)  # into the system's memory, both sides' imports done
        ours: list[float] = []
        pillow: list[float] = []
        for _ in range(options.repeats):
            ours.append(len(paths) / with_resfit(folder))
            pillow.append(len(paths[::10]) / with_pillow(paths[::10]))
    show(
        "images/s, JPEG files of 32 pixels into the cache (listed, hashed, decoded, written, synced)",
        ours,
        GOAL,
        data="cifar10-jpeg",
        goal_is="ratio at least",
        images=len(paths),
        peer=f"Pillow {PIL.__version__}, open and decode in a plain loop over {len(paths[::10])} of them",
        peer_values=pillow,
    )


def with_resfit(folder: Path) -> float:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RESFIT_CACHE"] = cache
        started = time.perf_counter()
        for split in ("trainval", "test"):
            load_split(folder, split, PixelRule(32))
        taken = time.perf_counter() - started
        shutil.rmtree(Path(cache) / "images")
    return taken


def with_pillow(paths: list[str]) -> float:
    images = np.empty((len(paths), 32, 32, 3), np.uint8)
    started = time.perf_counter()
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            images[i] = np.asarray(image.convert("RGB"))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
