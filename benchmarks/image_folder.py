"""Seconds from an image folder to the end of a first pass over all its images, cold and warm, beside a DataLoader with Pillow.

Usage: python benchmarks/image_folder.py FOLDER [--cache cold|warm] [--repeats 5]: FOLDER has train/CLASS/*.jpg and
test/CLASS/*.jpg (cifar10-jpeg extracted: 60,000 files). Prints one JSON object for each of cold and warm. About 8 s a repeat.

Each side is a new process, in alternation, and times itself from the end of its imports to the last batch: every image
as part of a batch of 500 uint8, copied and its corner pixels added up, so that none is left unread. Cold, ours decodes into an
empty cache; warm, a process before it has filled the cache (the peer has none, and is the same in both). The files are in
the system's memory for both. The peer is torch's DataLoader with 2 workers over a Dataset in the manner of ImageFolder: one
listing, Pillow, `convert("RGB")`. `imports` are the seconds of either side's imports, apart.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import PIL

from result import show

GOALS = {"cold": 3, "warm": 50}
BATCH = 500
SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", choices=tuple(GOALS), help="one of the two figures (default: both)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=("resfit", "pillow"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(resfit_side(options.folder) if options.side == "resfit" else pillow_side(options.folder)))
        return
    for state in [options.cache] if options.cache else GOALS:
        measure(options.folder, state, options.repeats)


def measure(folder: Path, state: str, repeats: int) -> None:
    ours, peer = [], []
    side("pillow", folder, Path("unused"))  # the files into the system's memory
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            if state == "warm":
                side("resfit", folder, Path(cache))
            ours.append(side("resfit", folder, Path(cache)))
            peer.append(side("pillow", folder, Path("unused")))
    counts = {found["images"] for found in (*ours, *peer)}
    assert len(counts) == 1, f"both sides see every image once, but counted {counts}"
    (count,) = counts
    show(
        f"images/s, {count:,} image files to the end of the first pass over all, cache {state}",
        [count / found["seconds"] for found in ours],
        GOALS[state],
        data=folder.name,
        goal_is="ratio at least",
        images=count,
        seconds=round(statistics.median(found["seconds"] for found in ours), 4),
        of_them_listing=round(statistics.median(found["listing"] for found in ours), 4),
        imports={"resfit": median_import(ours), "peer": median_import(peer)},
        peer=f"torch DataLoader, 2 workers, batch {BATCH}, Pillow {PIL.__version__}",
        peer_values=[count / found["seconds"] for found in peer],
    )


def median_import(sides: list[dict[str, Any]]) -> float:
    return round(float(statistics.median(found["imports"] for found in sides)), 3)


def side(name: str, folder: Path, cache: Path) -> dict[str, Any]:
    """Run one side in a process of its own."""
    command = [sys.executable, __file__, str(folder), "--side", name]
    environment = os.environ | {"RESFIT_CACHE": str(cache)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def resfit_side(folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    import numpy as np

    from resfit.data.images import PixelRule
    from resfit.data.sources import load_splits, open_source

    imported = time.perf_counter()
    seen = total = 0
    for images in load_splits(folder, ("trainval", "test"), PixelRule(SIZE)):
        for start in range(0, len(images), BATCH):
            batch = np.array(images.images[start : start + BATCH])
            seen += len(batch)
            total += int(batch[:, :, 0, 0].sum())
    ended = time.perf_counter()
    open_source(folder)  # once more, alone: what looking at every file's size and time costs
    listing = time.perf_counter() - ended
    times = {"imports": imported - started, "seconds": ended - imported, "listing": listing}
    return {"images": seen, "sum": total, **times}


def pillow_side(folder: Path) -> dict[str, Any]:
    started = time.perf_counter()
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    imported = time.perf_counter()

    class ImageFolder(Dataset[tuple[torch.Tensor, int]]):
        def __init__(self, top: Path) -> None:
            classes = sorted(entry.name for entry in os.scandir(top) if entry.is_dir())
            self.samples = [
                (os.path.join(parent, name), label)
                for label, c in enumerate(classes)
                for parent, _, names in sorted(os.walk(top / c))
                for name in sorted(names)
                if name.lower().endswith((".jpg", ".jpeg", ".png"))
            ]

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            path, label = self.samples[i]
            with open(path, "rb") as file:
                pixels = np.array(Image.open(file).convert("RGB"))
            return torch.from_numpy(pixels).permute(2, 0, 1), label

    seen = total = 0
    for split in ("train", "test"):
        for batch, _ in DataLoader(ImageFolder(folder / split), batch_size=BATCH, num_workers=2):
            seen += len(batch)
            total += int(batch[:, :, 0, 0].sum())
    return {"images": seen, "sum": total, "imports": imported - started, "seconds": time.perf_counter() - imported}


if __name__ == "__main__":
    main()
