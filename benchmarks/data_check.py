"""Seconds of `resfit data check` on a folder, without and with the search for near-duplicates; prints a JSON object for each.

Usage: python benchmarks/data_check.py FOLDER [--repeats 5] [--out results]
Each is the wall time of the whole command, from its start to its last line, in alternation: every file is read and decoded,
nothing comes from the cache. A first round, not counted, brings the files into the system's memory. What is wrong with the
images does not matter here; an exit code of 4 says that something is.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from result import keep, show

WORDS = {"data_check": ["--no-near"], "data_check_near": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in WORDS}
    said = {name: timed(a.folder, words)[1] for name, words in WORDS.items()}
    for _ in range(a.repeats):
        for name, words in WORDS.items():
            seconds[name].append(timed(a.folder, words)[0])
    for name, words in WORDS.items():
        peer: dict[str, Any] = {}
        if name == "data_check_near":
            peer = {"peer": "without near-duplicates", "peer_values": seconds["data_check"]}
        value = show(
            f"seconds of `resfit data check{''.join(f' {word}' for word in words)}`, {said[name]['images']:,} images",
            seconds[name],
            None,
            data=f"{a.folder.resolve().name}, {said[name]['images']:,} files",
            digits=3,
            goal_is="value at most",
            images_per_second=round(said[name]["images"] / statistics.median(seconds[name]), 1),
            problems={problem["kind"]: problem["count"] for problem in said[name]["problems"]},
            **peer,
        )
        keep(a.out, name, value)


def timed(folder: Path, words: list[str]) -> tuple[float, dict[str, Any]]:
    """Return the seconds of the command, and what it says."""
    command = [sys.executable, "-m", "resfit", "data", "check", str(folder), "--json", *words]
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - started
    assert done.returncode in (0, 4), f"exit code {done.returncode}"
    said: dict[str, Any] = json.loads(done.stdout)
    return seconds, said


if __name__ == "__main__":
    main()
