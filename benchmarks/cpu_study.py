"""Train every row of the reports for the same few images on a CPU, test it once, and add it to results/reproduce.

    python benchmarks/cpu_study.py --data PATH [--seeds 1] [--rows r4-lighter r4-deeper] [--runs DIR] [--results DIR]

One epoch at 16 pixels over the first thousand training images of each class of CIFAR-10 by file name, a tenth of them held out.
Where a network pools a window, it pools the whole map instead; r2-4, whose point is its window, is trained at 32 pixels, and
r2-3 once more beside it. No verdict on an accuracy follows; the rows are there so that none is empty. Finished runs are kept.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from resfit.published import add_result, row_names
from resfit.recipefile import load_recipe

PER_CLASS = 1000
SHORT = ["train.epochs=1", "schedule.interval=step"]
WHOLE = {"r2-3", "r2-4"}  # also, or only, at 32 pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", nargs="+", default=row_names(), choices=row_names())
    parser.add_argument("--runs", type=Path, default=Path("runs/cpu-study"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    a = parser.parse_args()
    data = subset(a.data, a.runs / "data")
    for seed in range(a.seeds):
        for recipe, settings in studies(a.rows, a.runs, seed):
            side = 32 if "data.image_size=16" not in settings else 16
            folder = a.runs / f"{recipe}-{side}px-seed-{seed}"
            train(recipe, settings, data, folder, seed)
            add_result(a.results, folder, recipe, settings, "python benchmarks/cpu_study.py --data PATH")


def subset(source: Path, folder: Path) -> Path:
    """Make a folder of links to the first PER_CLASS training images of each class and to all test images."""
    if not folder.exists():
        for split, limit in (("train", PER_CLASS), ("test", None)):
            for directory in sorted((source / split).iterdir()):
                (folder / split / directory.name).mkdir(parents=True)
                for file in sorted(directory.iterdir())[:limit]:
                    os.link(file, folder / split / directory.name / file.name)
    return folder


def studies(rows: list[str], runs: Path, seed: int) -> list[tuple[str, list[str]]]:
    """Return recipes with their settings, in an order in which a teacher comes before its student."""
    found = []
    for name in rows:
        pool = ["network.pool=0"] if load_recipe(name).network.pool else []
        teacher = runs / f"r1-baseline-16px-seed-{seed}"
        taught = [f"distill.teacher={teacher}"] if name == "r1-distill" else []
        if name != "r2-4":
            found.append((name, [*SHORT, "data.image_size=16", *pool, *taught]))
        if name in WHOLE:
            found.append((name, SHORT))
    return found


def train(recipe: str, settings: list[str], data: Path, folder: Path, seed: int) -> None:
    """Train or resume one run in a process of its own, and test it."""
    words = [sys.executable, "-m", "resfit"]
    if not (folder / "bundle" / "config.json").exists():
        new = ["train", recipe, "--data", str(data), "--out", str(folder), "--seed", str(seed), "--device", "cpu"]
        new += [f"--set={setting}" for setting in settings]
        subprocess.run([*words, *(["resume", str(folder)] if (folder / "run.json").exists() else new)], check=True)
    subprocess.run([*words, "test", str(folder), "--device", "cpu"], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
