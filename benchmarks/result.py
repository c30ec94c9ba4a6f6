"""What every benchmark prints: one JSON object with the figure, its goal, n, spread, and how to get it again."""

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def show(
    figure: str, values: Sequence[float], goal: float | None, data: str = "none", digits: int = 0, **more: Any
) -> dict[str, Any]:
    """Print the median of `values` as a result, and return it; `more` adds keys, `peer_values` a ratio of medians."""
    peer_values = more.pop("peer_values", None)
    value: dict[str, Any] = {
        "figure": figure,
        "value": _round(statistics.median(values), digits),
        "goal": goal,
        "goal_is": more.pop("goal_is", "value at least"),
        "n": len(values),
        "spread": [_round(min(values), digits), _round(max(values), digits)],
        "peer": more.pop("peer", None),
    }
    if peer_values:
        value["peer_value"] = _round(statistics.median(peer_values), digits)
        value["peer_spread"] = [_round(min(peer_values), digits), _round(max(peer_values), digits)]
        value["ratio"] = round(statistics.median(values) / statistics.median(peer_values), 3)
    value |= {"data": data, "device": device(), "commit": commit()}
    value |= {
        "command": " ".join(["python", *(os.path.relpath(word) if Path(word).exists() else word for word in sys.argv)])
    }
    print(json.dumps(value | more, indent=2), flush=True)
    return value | more


def keep(folder: Path | None, name: str, value: dict[str, Any]) -> None:
    """Also write a result to folder/name.json, where a folder is given."""
    if folder is not None:
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n")


def device() -> str:
    """Return processor, cores and Python."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def commit() -> str:
    """Return the commit, with + where the tree differs from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


def _round(value: float, digits: int) -> float:
    return round(value, digits) if digits else round(value)
