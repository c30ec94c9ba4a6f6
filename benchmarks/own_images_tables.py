"""The tables of docs/performance.md on one's own images, from results/*.json, measured or not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from performance_tables import Row, rows_table

ROWS = (
    Row(
        "test accuracy on patches of photographs, another region of each for every split",
        "none",
        "photographs.json",
        None,
        "",
        "`benchmarks/photographs.py`",
    ),
    Row(
        "time that `train --time-limit` takes, as a share of the limit",
        "none",
        "time_limit.json",
        ("value at most", 1.05),
        "",
        "`benchmarks/time_limit.py`",
    ),
    Row(
        "the same, half of the machine lost on the way",
        "none",
        "time_limit_busy.json",
        ("value at most", 1.05),
        "",
        "`benchmarks/time_limit.py`",
    ),
    *(
        Row(
            f"time that `train {data} --preset {name}` takes, as a share of its",
            "none",
            f"preset_{name}_{data}.json",
            ("value at most", 1.05),
            "",
            "`benchmarks/time_limit.py --preset`",
        )
        for name, data in (("quick", "cifar"), ("quick", "framed-centred"), ("balanced", "cifar"))
    ),
    Row(
        "val accuracy of what is planned for a time",
        "speed-cpu, the same time",
        "planned_accuracy.json",
        None,
        "",
        "`benchmarks/time_limit.py`",
    ),
    Row(
        "CPU training images/s, r4-lighter, streamed from the cache",
        "the same images in memory",
        "streaming_rate_r4_lighter.json",
        ("ratio at least", 0.9),
        "",
        "`benchmarks/streaming.py`",
    ),
    Row(
        "peak GB of memory of training on more images than that, streamed",
        "none",
        "streaming_memory.json",
        ("value at most", 2),
        "",
        "`benchmarks/streaming.py`",
    ),
    Row("seconds of `resfit data check --no-near`", "none", "data_check.json", None, "", "`benchmarks/data_check.py`"),
    Row("seconds of `resfit data check`", "--no-near", "data_check_near.json", None, "", "`benchmarks/data_check.py`"),
)


# file -> what its sides are of, and each pair of sides (without, with)
EFFECTS = {
    "own_images_resize.json": (
        "`data.resize`, val accuracy",
        [(f"{frame}, squash", f"{frame}, {rule}") for frame in ("centred", "anywhere") for rule in ("crop", "pad")],
    ),
    "own_images_class_weights.json": ("`train.class_weights`, val balanced accuracy", [("none", "balanced")]),
    "own_images_init.json": (
        "`--init`, val accuracy",
        [(f"{count} a class, seed", f"{count} a class, init") for count in (10, 50, 200)],
    ),
}


def own_images_tables(folder: Path) -> dict[str, str]:
    """Return the generated parts of docs/performance.md by the names of their marks."""
    return {"own images": rows_table(folder, ROWS), "own images effects": effects_table(folder)}


def effects_table(folder: Path) -> str:
    """Return what each means brings: two sides, the difference of their means, and the 95% interval of it in points."""
    lines = ["| what | without | with | points more (95% interval) | n | data; device, commit; command |"]
    lines.append("|---|---|---|---|---|---|")
    for name, (what, pairs) in EFFECTS.items():
        file = folder / name
        if not file.exists():
            lines.append(f"| {what} | not measured yet: `benchmarks/own_images.py` | – | – | – | – |")
            continue
        value = json.loads(file.read_text())
        for first, second in pairs:
            said = f"{value['data']}; {value['device']}, {value['commit']}; `{value['command']}`"
            cells = [f"[{what}](../results/{name})"]
            cells += [f"{side}: {value['sides'][side]['mean']:.1%}" for side in (first, second)]
            cells += [gain(value["differences"], first, second), str(value["n"]), said]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gain(differences: Mapping[str, Mapping[str, Any]], first: str, second: str) -> str:
    """Return by how many points the second side is above the first; differences are kept with the larger side first."""
    found, sign = differences.get(f"{second} - {first}"), 100
    if found is None:
        found, sign = differences[f"{first} - {second}"], -100
    low, high = sorted(sign * bound for bound in found["interval"])
    return f"{sign * found['difference']:+.1f} ({low:+.1f} to {high:+.1f})"
