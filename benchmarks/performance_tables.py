"""The tables and the plot of docs/performance.md, from results/*.json: every figure asked for, measured or not, and growth."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resfit.charts import value_axis
from resfit.drawing import Drawing, Label, Stroke, to_svg

QUEUE = "`benchmarks/gpu_queue.toml`"
PLAIN, TRAIN = "the plain loop that the reports use", "CPU training images/s"
ACCURACY = "airbench's 94% recipe on the CPU; the reports' recipe"
FOLDER = "image folder of 60,000 JPEGs, first pass over all of them"
LOADER = "ImageFolder-style loading with Pillow, 2 workers"


@dataclass(frozen=True)
class Row:
    """A figure of the issue; `file` is a glob of its results (? for - or _); `goal` stands above a result's own."""

    figure: str
    peer: str
    file: str
    goal: tuple[str, float] | None
    words: str
    queued: str


ROWS = (
    Row(f"{TRAIN}, geometric mean", PLAIN, "cpu_train.json", ("ratio at least", 1.5), "", "`benchmarks/cpu_train.py`"),
    *(
        Row(f"{TRAIN}, {name}", PLAIN, f"cpu_train_{name.replace('-', '?')}.json", None, "part of the mean", "same")
        for name in ("r1-4", "r4-lighter", "r5", "resnet-20")
    ),
    Row(
        f"{TRAIN}, r1-4, beside its convolutions alone",
        "the same convolutions, forward and backward",
        "cpu_convolutions_r1?4.json",
        ("ratio at least", 0.85),
        "",
        "`benchmarks/cpu_train.py`",
    ),
    Row(
        "CPU accuracy after 10 minutes",
        ACCURACY,
        "cpu_accuracy_10.json",
        None,
        "higher than both",
        "`benchmarks/cpu_accuracy.py`",
    ),
    Row(
        "CPU accuracy after 30 minutes",
        ACCURACY,
        "cpu_accuracy_30.json",
        None,
        "higher than both; at least 0.91",
        "`benchmarks/cpu_accuracy.py`",
    ),
    Row(
        "GPU training images/s, r1-4",
        "the plain loop; a timm-style loop; the bf16 matrix rate",
        "gpu_train*.json",
        None,
        "20 times; 2 times; 0.4 of it",
        QUEUE,
    ),
    Row("GPU time to 94%", "airbench94_muon", "gpu_speed_94.json", ("ratio at most", 0.8), "", QUEUE),
    Row("GPU time to 95%", "airbench95", "gpu_speed_95.json", ("ratio at most", 0.5), "", QUEUE),
    Row("GPU time to 96%", "airbench96_faster", "gpu_speed_96.json", ("ratio at most", 1.0), "", QUEUE),
    Row(f"{FOLDER}, cold", LOADER, "image_folder_cold.json", ("ratio at least", 3), "", "`benchmarks/image_folder.py`"),
    Row(
        f"{FOLDER}, warm", LOADER, "image_folder_warm.json", ("ratio at least", 50), "", "`benchmarks/image_folder.py`"
    ),
    Row(
        "prediction images/s from files, CPU",
        "torch eager, one image at a time",
        "predict_rate_[!o]*.json",
        ("ratio at least", 4),
        "",
        "`benchmarks/predict_rate.py`",
    ),
    Row(
        "prediction images/s from files, CPU",
        "ONNX Runtime in a plain loop",
        "predict_rate_onnx_*.json",
        ("ratio at least", 1.5),
        "",
        "`benchmarks/predict_rate.py`",
    ),
    *(
        Row(
            f"seconds of `resfit {verb}`",
            "import torch",
            f"start_up_{name}.json",
            (how, goal),
            "",
            "`benchmarks/start_up.py`",
        )
        for verb, name, how, goal in (
            ("--help", "help", "ratio at most", 0.2),
            ("cost", "cost", "ratio at most", 0.2),
            ("design", "design", "value at most", 1.0),
        )
    ),
    Row(
        "seconds of `design` over its default ranges, imports apart",
        "counting every network",
        "design_time.json",
        ("value at most", 1.0),
        "",
        "`benchmarks/design_time.py`",
    ),
    Row(
        "rank correlation of the rule of expected accuracy with held-out runs of one budget",
        "ranking by parameters",
        "design_runs.json",
        None,
        "",
        "`benchmarks/design_runs.py`",
    ),
    *(
        Row(
            f"val accuracy of the network that `design` picks, equal training {what}",
            "the reports' shapes scaled; random search; Optuna unfiltered",
            f"design_compare_{what}.json",
            None,
            "above all three",
            "`benchmarks/design_compare.py`",
        )
        for what in ("seconds", "images")
    ),
    Row(
        "trials an hour of `search` with two workers",
        "with one worker",
        "search_rate.json",
        None,
        "",
        "`benchmarks/search_rate.py`",
    ),
    Row(
        "share of CPU training that checkpoints take at the default interval, a network of 5M",
        "none",
        "checkpoint_cost.json",
        ("value at most", 0.02),
        "",
        "`benchmarks/checkpoint_cost.py`",
    ),
    Row(
        "seconds that `resfit resume` takes to continue, above importing torch and opening the cache",
        "importing torch and opening the cache",
        "resume_start.json",
        ("value at most", 2.0),
        "",
        "`benchmarks/checkpoint_cost.py`",
    ),
    *(
        Row(
            f"CPU images/s of an exported ONNX file, {precision}, batch {batch}",
            "PyTorch eager",
            f"export_{precision}_{batch}_*.json",
            goal,
            "",
            "`benchmarks/export_speed.py`",
        )
        for precision, batch, goal in (
            ("float32", 1, ("ratio at least", 1.5)),
            ("float32", 64, None),
            ("int8", 1, None),
            ("int8", 64, None),
        )
    ),
    Row(
        "how many times smaller an int8 ONNX file is",
        "the float32 one",
        "export_int8_bytes_*.json",
        ("value at least", 3.5),
        "",
        "`benchmarks/export_speed.py`",
    ),
    Row(
        "points of accuracy that int8 loses",
        "the network",
        "export_int8_loss_*.json",
        ("value at most", 0.5),
        "",
        "`benchmarks/export_speed.py`",
    ),
    Row(
        "requests/s of `resfit serve`, 64 connections of wrk",
        "a bare fastapi endpoint",
        "serve_load.json",
        ("ratio at least", 1.0),
        "",
        "`benchmarks/serve_load.py`",
    ),
    Row(
        "bad requests that were answered wrongly or late by `resfit serve`",
        "none",
        "serve_abuse.json",
        ("value at most", 0),
        "",
        "`benchmarks/serve_abuse.py`",
    ),
)
PARTS = {"batch_size": "batch size", "width": "width", "depth": "blocks a stage", "image_size": "side, pixels"}
PARTS |= {"images": "images", "threads": "threads"}
PANEL, PLOT, GAP, LEFT, TOP = (250, 150), (190, 100), 40, 56, 30


def performance_tables(folder: Path) -> dict[str, str]:
    """Return the generated parts of docs/performance.md by the names of their marks."""
    return {"rows": rows_table(folder, ROWS), "growth": growth_table(growth_of(folder))}


def rows_table(folder: Path, rows: Sequence[Row]) -> str:
    lines = ["| figure | measured | peer | peer's | ratio | goal | met | n (spread) | device, commit | command |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        found = sorted(folder.glob(row.file))
        for path in found:
            lines.append(measured_line(row, path, json.loads(path.read_text())))
        if not found:
            goal = row.words or goal_words(row.goal)
            lines.append(
                f"| {row.figure} | not measured yet: {row.queued} | {row.peer} | – | – | {goal} | – | – | – | – |"
            )
    return "\n".join(lines) + "\n"


def measured_line(row: Row, path: Path, value: Mapping[str, Any]) -> str:
    own = (value["goal_is"], value["goal"]) if value.get("goal") is not None else None
    goal = row.goal or (None if row.words == "part of the mean" else own)
    spread = " to ".join(f"{bound:,}" for bound in value["spread"])
    cells = [f"[{value['figure']}](../results/{path.name})", f"{value.get('value', value.get('ratio')):,}"]
    cells += [str(value.get("peer") or row.peer), f"{value['peer_value']:,}" if "peer_value" in value else "–"]
    cells += [str(value.get("ratio", "–")), row.words or goal_words(goal), verdict(goal, value)]
    cells += [f"{value['n']} ({spread})", f"{value['device']}; {value['commit']}", f"`{value['command']}`"]
    return f"| {' | '.join(cells)} |"


def goal_words(goal: tuple[str, float] | None) -> str:
    return "–" if goal is None else f"{goal[0]} {goal[1]:g}"


def verdict(goal: tuple[str, float] | None, value: Mapping[str, Any]) -> str:
    """Return whether a result meets a goal `{value,ratio} at {least,most}`, and by what part of the goal it does not."""
    if goal is None or goal[0].split()[0] not in value:
        return "–"
    if not value.get("qualified", True):
        return f"no: {value['unless']}"
    found, how = value[goal[0].split()[0]], goal[0].split()[-1]
    lack = goal[1] - found if how == "least" else found - goal[1]
    if lack <= 0:
        return "yes"
    if goal[1] == 0:
        return "no"
    return f"missed by {100 * lack / goal[1]:.1f}%"


def growth_of(folder: Path) -> Mapping[str, Any] | None:
    file = folder / "growth.json"
    return json.loads(file.read_text()) if file.exists() else None


def growth_table(value: Mapping[str, Any] | None) -> str:
    """Return the table of how cost grows, under the plot of it."""
    if value is None:
        return "Not measured yet: `benchmarks/growth.py`.\n"
    lines = [f"![Training images/s against {', '.join(PARTS.values())}](growth.svg)", ""]
    lines += [
        f"{value['device']}; {value['threads']} threads but in the last part; {value['commit']}; n {value['n']}.",
        "",
    ]
    lines += [
        "| quantity | at | images/s | spread | macs an image | GMAC/s (3 x forward) |",
        "|---|---|---|---|---|---|",
    ]
    for curve in value["growth"].values():
        for point in curve["points"]:
            rate, macs = point["images_per_second"], point["macs"]
            low, high = point["spread"]
            cells = [curve["quantity"], f"{point['at']:,}", f"{rate:,}", f"{low:,} to {high:,}", f"{macs:,}"]
            lines.append(f"| {' | '.join([*cells, f'{3 * macs * rate / 1e9:.1f}'])} |")
    return "\n".join(lines) + "\n"


def growth_svg(value: Mapping[str, Any]) -> str:
    """Return the plot: a panel a quantity, its values spaced by their logarithms, images/s from 0."""
    shapes: list[Stroke | Label] = []
    curves = list(value["growth"].items())
    for number, (name, curve) in enumerate(curves):
        left, top = LEFT + number % 3 * PANEL[0], TOP + number // 3 * (PANEL[1] + GAP)
        shapes += panel(PARTS[name], curve["points"], left, top)
    height = TOP + math.ceil(len(curves) / 3) * (PANEL[1] + GAP)
    title = "Training images/s on the CPU, one quantity changed at a time"
    return to_svg(Drawing(LEFT + 3 * PANEL[0], height, title, value["figure"], tuple(shapes)))


def panel(name: str, points: list[Mapping[str, Any]], left: float, top: float) -> list[Stroke | Label]:
    axis = value_axis([0.0, *(point["images_per_second"] for point in points)])
    low, high = (math.log(points[place]["at"]) for place in (0, -1))
    bottom, span = top + PLOT[1], max(high - low, 1e-9)
    across = [left + PLOT[0] * (math.log(point["at"]) - low) / span for point in points]
    shapes: list[Stroke | Label] = [Label(left, top - 8, f"images/s by {name}", colour="ink", bold=True)]
    for tick, text in axis.ticks[:: 1 + len(axis.ticks) // 6]:
        height = bottom - PLOT[1] * axis.place(tick)
        shapes.append(Stroke(((left, height), (left + PLOT[0], height)), "axis" if tick == 0 else "grid"))
        shapes.append(Label(left - 6, height + 4, text, "end", size=11))
    for x, point in zip(across, points, strict=True):
        shapes.append(Label(x, bottom + 16, f"{point['at']:,}", "middle", size=11))
    places = [(x, bottom - PLOT[1] * axis.place(p["images_per_second"])) for x, p in zip(across, points, strict=True)]
    shapes.append(Stroke(tuple(places), "s0", 2.0, title=name))
    return [*shapes, *(Stroke((place,), "s0", 2.0) for place in places)]
