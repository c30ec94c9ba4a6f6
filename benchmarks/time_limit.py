"""How well `resfit train --time-limit` keeps its limit, and what is planned is worth; prints a JSON object for each.

    python benchmarks/time_limit.py DATA [--limit 90] [--repeats 3] [--work DIR] [--out results]
    python benchmarks/time_limit.py DATA --preset quick [--repeats 1] [--work DIR] [--out results]

time_limit: wall time of the whole command, from its start to its end, as a share of the limit: of what is planned for DATA, and
of the recipes in RECIPES, with the same limit, in alternation. time_limit_busy: what is planned, with a process on every core
that starts after a third of the limit and stays: half the machine is gone, and the plan has to follow.
planned_accuracy: val accuracy of what was planned beside that of speed-cpu in the same time. The test split is not read.
preset_NAME_DATA, with --preset: the wall time of `resfit train DATA --preset NAME`, as a share of its time; val accuracy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

from resfit.planner import PRESETS
from result import keep, show

RECIPES = ("speed-cpu",)
BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--limit", type=float, default=90.0, help="seconds")
    parser.add_argument("--preset", choices=list(PRESETS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (measure if a.preset is None else preset)(a, a.work or Path(folder))


def measure(a: argparse.Namespace, work: Path) -> None:
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in range(a.repeats):
        for name in ("planned", *RECIPES, "busy"):
            words = [] if name in ("planned", "busy") else [name]
            row = timed(a, words, work / f"{name}-{seed}", seed, busy=name == "busy")
            rows.setdefault(name, []).append(row)
            print(json.dumps({"name": name, "seed": seed, **row}), file=sys.stderr, flush=True)
    of = {name: [row["seconds"] / a.limit for row in some] for name, some in rows.items()}
    data = f"{Path(a.data).name}, val held out"
    calm = [share for name, some in of.items() if name != "busy" for share in some]
    for figure, name, shares in (
        ("time taken, as a share of --time-limit", "time_limit", calm),
        ("time taken, as a share of --time-limit, half of the machine lost on the way", "time_limit_busy", of["busy"]),
    ):
        value = show(figure, shares, 1.05, data=data, digits=3, goal_is="value at most", limit_seconds=a.limit)
        keep(a.out, name, value | {"runs": rows if name == "time_limit" else {"busy": rows["busy"]}})
    scores = {name: [row["val_accuracy"] for row in some] for name, some in rows.items()}
    value = show(
        f"val accuracy of what is planned for {a.limit:g} s, beside speed-cpu in the same time",
        scores["planned"],
        None,
        data=data,
        digits=4,
        goal_is="value at least",
        peer="speed-cpu --time-limit",
        peer_values=scores["speed-cpu"],
    )
    means = {name: round(statistics.mean(some), 4) for name, some in scores.items()}
    keep(a.out, "planned_accuracy", value | {"means": means, "network": rows["planned"][0]["network"]})


def preset(a: argparse.Namespace, work: Path) -> None:
    rows = []
    for seed in range(a.repeats):
        rows.append(timed(a, ["--preset", a.preset], work / f"{a.preset}-{seed}", seed, busy=False))
        print(json.dumps({"name": a.preset, "seed": seed, **rows[-1]}), file=sys.stderr, flush=True)
    limit = PRESETS[a.preset]
    value = show(
        f"time taken, as a share of the {limit / 60:g} minutes of --preset {a.preset}",
        [row["seconds"] / limit for row in rows],
        1.05,
        data=f"{Path(a.data).name}, val held out",
        digits=3,
        goal_is="value at most",
        limit_seconds=limit,
        val_accuracy=[row["val_accuracy"] for row in rows],
        runs=rows,
    )
    keep(a.out, f"preset_{a.preset}_{Path(a.data).name}", value)


def timed(a: argparse.Namespace, words: list[str], out: Path, seed: int, busy: bool) -> dict[str, Any]:
    """Run the command; return its seconds and what came of it."""
    command = [sys.executable, "-m", "resfit", "train", *words, "--data", a.data]
    command += [] if a.preset else ["--time-limit", f"{a.limit:g}s"]
    command += ["--out", str(out), "--seed", str(seed), "--device", "cpu"]
    others: list[subprocess.Popen[bytes]] = []

    def disturb() -> None:
        others.extend(subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1))

    timer = threading.Timer(a.limit / 3, disturb)
    started = time.monotonic()
    try:
        if busy:
            timer.start()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - started
    finally:
        timer.cancel()
        for other in others:
            other.kill()
            other.wait()
    summary = json.loads((out / "summary.json").read_text())
    recipe = tomllib.loads((out / "recipe.toml").read_text())
    return {
        "seconds": round(seconds, 2),
        "epochs": summary["time_limit"]["epochs"],
        "planned_epochs": recipe["train"]["epochs"],
        "params": summary["params"],
        "macs": summary["macs"],
        "val_accuracy": summary["val"]["accuracy"],
        "network": json.loads((out / "bundle" / "config.json").read_text())["spec"],
    }


if __name__ == "__main__":
    main()
