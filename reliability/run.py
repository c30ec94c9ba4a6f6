"""Prove that a run is never lost: kills, failing calls, power cuts, corruptions, owners, planted faults; docs/reliability.md.

Usage: python reliability/run.py [--share 0.1] [--only NAME ...] [--out results/reliability.json] [--jobs N] [--minutes M]
A share of the counts, from a tenth on at least one round of each class. What is done is noted in .reliability/NAME.jsonl and
counted by the next visit, as long as the code under proof and the check are the same. Exit code 1 where a round failed.
"""

import argparse
import contextlib
import hashlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

import calls
import corruptions
import faults
import kills
import owners
import powercuts
import ranks
import searches
import tiny
from figure import Figure, Round

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from result import commit, device  # noqa: E402 - the benchmarks' own words for machine and commit

FIGURES: dict[str, Figure] = {
    "kills": kills.FIGURE,
    "calls": calls.KILLS,
    "errors": calls.FAILURES,
    "powercuts": powercuts.FIGURE,
    "corruptions": corruptions.FIGURE,
    "owners": owners.FIGURE,
    "ranks": ranks.FIGURE,
    "searches": searches.FIGURE,
    "faults": faults.FIGURE,
}
FILES = {  # what each check is made of
    "kills": ("kills",),
    "calls": ("calls", "watch", "writers"),
    "errors": ("calls", "watch", "writers"),
    "powercuts": ("powercuts", "disk", "watch", "writers"),
    "corruptions": ("corruptions",),
    "owners": ("owners",),
    "ranks": ("ranks",),
    "searches": ("searches", "kills"),
    "faults": ("faults", "calls", "watch", "writers", "powercuts", "disk", "corruptions", "owners"),
}
LONGEST = [
    "errors",
    "ranks",
    "searches",
    "faults",
    "kills",
    "calls",
    "owners",
    "corruptions",
    "powercuts",
]  # first: two end together
SHARED = ("figure", "forks", "tiny")  # files that every check stands on
SHOWN = 5  # problems of a figure that go into the JSON


def main(words: Sequence[str] | None = None) -> int:
    """Run what is missing of a share, write the JSON, and return 1 where a round failed."""
    a = _parse(words)
    torch.set_num_threads(1)  # before anything forks
    base = Path(tempfile.mkdtemp(prefix="reliability-"))
    try:
        tiny.prepare(base)
        deadline = time.monotonic() + a.minutes * 60
        asked = a.only or list(FIGURES)
        if a.jobs > 1:
            side_by_side(a, asked, deadline)
        named = FIGURES if a.out else asked  # the file keeps what other visits did
        values = [visit(name, a.share if name in asked else 0.0, base, a.work, deadline) for name in named]
    finally:
        shutil.rmtree(base, ignore_errors=True)
    value = result(values, a.share)
    if a.out is not None:
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text(json.dumps(value, indent=2) + "\n")
    print(json.dumps(value, indent=2))
    return int(value["value"] > 0)


def side_by_side(a: argparse.Namespace, names: Sequence[str], deadline: float) -> None:
    """Run the rounds of these figures, each in a process of its own, `a.jobs` at once; their ledgers keep what came out."""

    def one(name: str) -> None:
        left = max(0.0, deadline - time.monotonic()) / 60
        words = ["--share", f"{a.share}", "--only", name, "--work", str(a.work), "--minutes", f"{left}"]
        subprocess.run([sys.executable, __file__, *words], stdout=subprocess.DEVNULL)  # a failed round is in its ledger

    with ThreadPoolExecutor(a.jobs) as pool:
        list(pool.map(one, sorted(names, key=LONGEST.index)))


def visit(name: str, share: float, base: Path, work: Path, deadline: float) -> dict[str, Any]:
    """Run the rounds of a figure that are missing in its ledger, until the deadline; return its line of the JSON."""
    figure, made_with = FIGURES[name], source(name)
    ledger = work / f"{name}.jsonl"
    rounds = figure.rounds(base)
    planned = chosen(rounds, share)
    done, made_at = {row["key"] for row in rows(ledger, made_with)}, commit()
    for item in planned:
        if item.key in done or time.monotonic() > deadline:
            continue
        note(ledger, tried(figure, base, item) | {"source": made_with, "commit": made_at})
    counted = rows(ledger, made_with)
    problems = [f"{row['key']}: {row['problem']}" for row in counted if row["problem"]]
    return {
        "check": name,
        "name": figure.name,
        "n": len(counted),
        "failures": len(problems),
        "classes": len({row["kind"] for row in counted}),
        "all": {"n": len(rounds), "classes": len({item.kind for item in rounds})},
        "seconds": round(sum(row["seconds"] for row in counted), 1),
        "problems": problems[:SHOWN],
        "source": made_with,
        "commits": sorted({row["commit"] for row in counted}),
    }


def chosen(rounds: Sequence[Round], share: float) -> Sequence[Round]:
    """Return the first rounds, a share of all and from a tenth on one of each class: figures list those first."""
    classes = len({item.kind for item in rounds})
    count = math.ceil(share * len(rounds))
    return rounds[: max(count, classes) if share >= 0.1 else count]


def tried(figure: Figure, base: Path, item: Round) -> dict[str, Any]:
    """Run one round in a folder of its own and return its row; whatever it raises is a failure too."""
    folder = Path(tempfile.mkdtemp(dir=base))
    started = time.monotonic()
    try:
        problem = figure.check(base, folder, item)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - started
    if problem:
        print(f"{item.key}: {problem}", file=sys.stderr, flush=True)
    return {"key": item.key, "kind": item.kind, "problem": problem[:500], "seconds": round(seconds, 4)}


def rows(ledger: Path, made_with: str) -> list[dict[str, Any]]:
    """Return the rows of a ledger that were made with this source; a last line cut short is left out."""
    found = {}
    for line in ledger.read_text().split("\n") if ledger.exists() else []:
        with contextlib.suppress(ValueError):  # cut short by a kill
            row = json.loads(line)
            if row["source"] == made_with:
                found[row["key"]] = row
    return list(found.values())


def note(ledger: Path, row: dict[str, Any]) -> None:
    """Add a row to a ledger."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.open("a") as file:
        file.write(f"\n{json.dumps(row)}\n")  # a line of its own after one that was cut short


def source(name: str) -> str:
    """Return a digest of the code under proof and of a figure's check."""
    package = ROOT / "src" / "resfit"
    files = sorted([*package.rglob("*.py"), *package.glob("recipes/*.toml")])
    files += [ROOT / "reliability" / f"{stem}.py" for stem in (*SHARED, *FILES[name])]
    total = hashlib.blake2b(digest_size=8)
    for file in files:
        total.update(f"{file.relative_to(ROOT)} {tiny.digest(file.read_bytes())}\n".encode())
    return total.hexdigest()


def result(values: list[dict[str, Any]], share: float) -> dict[str, Any]:
    """Return the content of results/reliability.json: what every result says, and `figures`."""
    failures = sum(value["failures"] for value in values)
    return {
        "figure": "a run is never lost: rounds in which it was, or in which an error was silent",
        "value": failures,
        "goal": 0,
        "goal_is": "value at most",
        "n": sum(value["n"] for value in values),
        "spread": [failures, failures],
        "peer": None,
        "data": "100 handwritten digits of 3 classes, 16 pixels",
        "device": device(),
        "commit": commit(),
        "command": f"python reliability/run.py --share {share:g}",
        "figures": values,
    }


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.1, help="of the counts (default 0.1; 1 is all)")
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), help="these figures only")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    parser.add_argument("--work", type=Path, default=ROOT / ".reliability", help="where the ledgers lie")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="figures at once, each a process (default 1)")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no round after these")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
