"""Training streamed from the cache beside the same images in memory: images/s and peak memory; prints a JSON object for each.

    python benchmarks/streaming.py --work DIR [--images 700000] [--size 32] [--steps 20] [--repeats 5] [--out results]

`resfit.train` itself, of r4-lighter with its own batch size, on a CPU, in two processes that live through all of it and train
in turn: $RESFIT_MEMORY lets the one hold the images, the other has to read them ahead from the cache. Steady steps only: before
each `--steps` that are timed, those go untimed whose batches a waiting process had time to read. Before each turn the system is
told to forget the cache's file, so that what is streamed comes from the disk, as it does from a set larger than memory. In the
end both must have the same weights. Peak memory is the process's own high-water mark (VmHWM: with all mapped pages), from its
start. The images are random pixels, repeated: 2.15 GB in the cache, twice that in DIR, deleted at the end. On two quiet cores:
about 15 minutes.
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from result import keep, show

NETWORK = "r4-lighter"
BLOCK, CLASSES, VAL = 10_000, 10, 1_000
LIMITS = {"streamed": "64M", "resident": "64G"}
RATIO, GIGABYTES = 0.9, 2.0  # goals


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="where the images may lie for the time")
    parser.add_argument("--images", type=int, default=700_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-size", type=int, help="instead of the recipe's own: for a trial of this script only")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.side:
        train(Path(a.side[0]), a.side[1], a.size, a.steps, a.batch_size)
        return
    if a.work is None:
        parser.error("--work: name a folder with room")
    a.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=a.work) as place:
        folder = Path(place)
        write_images(folder / "set.npz", a.images, a.size)
        fill_cache(folder, a.size)
        measure(a, folder)


def write_images(file: Path, count: int, size: int) -> None:
    """Write a .npz of `count` training images, the same few again and again, and some to validate on."""
    block = np.random.default_rng(0).integers(0, 256, (min(count, BLOCK), size, size, 3), np.uint8)
    with zipfile.ZipFile(file, "w") as archive:
        for split, number in (("train", count), ("val", VAL)):
            with archive.open(f"{split}_labels.npy", "w") as to:
                np.lib.format.write_array(to, np.arange(number) % CLASSES)
            head = {"descr": "|u1", "fortran_order": False, "shape": (number, size, size, 3)}
            with archive.open(f"{split}_images.npy", "w", force_zip64=True) as to:
                np.lib.format.write_array_header_1_0(to, head)
                for start in range(0, number, len(block)):
                    to.write(block[: number - start].tobytes())


def fill_cache(folder: Path, size: int) -> None:
    words = [sys.executable, "-m", "resfit", "data", "prepare", str(folder / "set.npz"), "--image-size", str(size)]
    subprocess.run(words, check=True, stdout=sys.stderr, env=environment(folder, "streamed"))
    os.sync()  # only what is on the disk can be forgotten


def environment(folder: Path, side: str) -> dict[str, str]:
    return os.environ | {"RESFIT_CACHE": str(folder / "cache"), "RESFIT_MEMORY": LIMITS[side]}


def forget(folder: Path) -> None:
    """Tell the system to drop its copy of the cache's images."""
    for file in folder.glob("cache/images/*/images.npy"):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Side:
    """A process that trains `--steps` at a time; see `train`."""

    def __init__(self, side: str, a: argparse.Namespace, folder: Path) -> None:
        words = [sys.executable, __file__, "--side", str(folder), side, "--size", str(a.size), "--steps", str(a.steps)]
        words += ["--batch-size", str(a.batch_size)] if a.batch_size else []
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(words, env=environment(folder, side), **pipes)

    def turn(self, word: str) -> dict[str, Any]:
        """Let the process go on until it waits again ("go"), or to its end ("end"); return what it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "a side of the measurement died"
        found: dict[str, Any] = json.loads(answer)
        return found


def measure(a: argparse.Namespace, folder: Path) -> None:
    with sides(a, folder) as running:
        for side in running.values():
            side.turn("go")  # the first warms up
        rates: dict[str, list[float]] = {name: [] for name in running}
        for _ in range(a.repeats):
            for name, side in running.items():
                forget(folder)
                rates[name].append(side.turn("go")["rate"])
        ends = {name: side.turn("end") for name, side in running.items()}
    assert ends["streamed"]["weights"] == ends["resident"]["weights"], "the two ways trained different weights"
    gigabytes = 3 * a.size**2 * a.images / 1e9
    data = f"{a.images:,} images of {a.size} pixels, {gigabytes:.2f} GB in the cache"
    peaks = {name: round(end["peak"] / 1e9, 3) for name, end in ends.items()}
    common: dict[str, Any] = {"data": data, "steps": a.steps, "batch_size": ends["streamed"]["batch_size"]}
    value = show(
        f"CPU training images/s, {NETWORK}, streamed from the cache on a disk",
        rates["streamed"],
        RATIO,
        digits=2,
        goal_is="ratio at least",
        peer="the same images in memory, to the same weights",
        peer_values=rates["resident"],
        **common,
    )
    keep(a.out, f"streaming_rate_{NETWORK.replace('-', '_')}", value)
    name = f"peak GB of memory of training {NETWORK} on {gigabytes:.2f} GB of images, streamed"
    peak, more = [peaks["streamed"]], {"goal_is": "value at most", "in_memory_peak": peaks["resident"]}
    keep(a.out, "streaming_memory", show(name, peak, GIGABYTES, digits=3, **more, **common))


@contextlib.contextmanager
def sides(a: argparse.Namespace, folder: Path) -> Iterator[dict[str, Side]]:
    """Start both processes; they end with the block."""
    running: dict[str, Side] = {}
    try:
        for name in LIMITS:
            running[name] = Side(name, a, folder)
        yield running
    finally:
        for side in running.values():
            side.process.kill()
            side.process.communicate()


class EnoughError(Exception):
    """Training has gone as far as it was asked to."""


def train(folder: Path, side: str, size: int, steps: int, batch_size: int | None) -> None:
    """Train, `steps` timed ones after each line "go" of stdin; print the images a second, and at "end" the weights' hash."""
    from resfit.data.feed import AHEAD
    from resfit.recipefile import load_recipe
    from resfit.training.launch import train as launch
    from resfit.training.runlog import Progress
    from resfit.training.state import TrainState

    given = [f"train.batch_size={batch_size}"] if batch_size else []
    recipe = load_recipe(NETWORK, [f"data.image_size={size}", *given])
    count, made, started = recipe.train.batch_size, 0, 0.0

    def step(self: object, state: TrainState, steps_per_epoch: int, seconds: float) -> None:
        nonlocal made, started
        made += 1
        if made == AHEAD + 1:
            started = time.perf_counter()
        if made == AHEAD + 1 + steps:
            answer({"rate": steps * count / (time.perf_counter() - started)})
            made = 0
            if sys.stdin.readline().strip() != "go":
                weights = b"".join(v.cpu().numpy().tobytes() for v in state.model.state_dict().values())
                answer({"weights": hashlib.sha256(weights).hexdigest(), "peak": peak(), "batch_size": count})
                raise EnoughError

    assert sys.stdin.readline().strip() == "go"
    with contextlib.suppress(EnoughError):
        Progress.step = step  # type: ignore[method-assign]
        launch(recipe, folder / "set.npz", folder / side, device="cpu")


def answer(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def peak() -> int:
    """Return the largest number of bytes that this process has had in memory, mapped files among them."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


if __name__ == "__main__":
    main()
