"""The page of a study: one HTML file with its own drawings, that opens from disk and asks the network for nothing. No torch."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

from resfit.charts import Axis, value_axis
from resfit.drawing import DARK, LIGHT, Drawing, Label, Stroke, to_svg
from resfit.study.answer import accuracy_text, counts_text

WIDTH, PLOT, LEFT, TOP = 720, 260, 190, 40  # pixels of a drawing
GOOD = 0.25  # the share of trials that parallel coordinates show strongly
Trials = list[dict[str, Any]]

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;background:PAPER;color:INK}
table{border-collapse:collapse;display:block;overflow-x:auto}
th,td{padding:.25rem .75rem;text-align:left;border-bottom:1px solid GRID}
svg{max-width:100%;height:auto}pre{overflow-x:auto}caption{text-align:left}"""


def report_page(result: dict[str, Any]) -> str:
    """Return the page of what `summarise` returned."""
    done = [trial for trial in result["trials"] if trial["val_accuracy"] is not None]
    drawings = [
        drawing
        for drawing in (pareto(done), importance(result["importance"]), coordinates(done, result["importance"]))
        if drawing is not None
    ]
    counts = "; ".join(f"{key}: {counts_text(found)}" for key, found in result["counts"].items())
    won = result["winner"]
    verdict = f"Winner: {won['label']}, {won['network']}: val {won['text']}" if won else "No winner yet."
    parts = [
        f"<h1>{html.escape(result['name'])}</h1>",
        f"<p>{html.escape(verdict if result['mode'] == 'search' else 'One change at a time.')}</p>",
        f"<p>{html.escape(counts)}. Accuracies are of the validation split; the test split was not read.</p>",
        "<h2>Trained again with seeds of their own</h2>" if result["mode"] == "search" else "<h2>Rows</h2>",
        _table(
            ["", "network", "params", "macs", "claim", "val accuracy"],
            [
                [row["label"], row["network"], f"{row['params']:,}", f"{row['macs']:,}", row["claim"] or "",
                 "over budget: not trained" if row["over"] else accuracy_text(row)]
                for row in result["rows"]
            ],
        ),
        *(f"<figure>{to_svg(drawing, str(number))}</figure>" for number, drawing in enumerate(drawings)),
    ]  # fmt: skip
    if result["trials"]:
        cells = [
            [trial["slot"], trial["state"], _percent(trial["val_accuracy"]), str(trial["epochs"]),
             f"{trial['params'] or 0:,}", ", ".join(f"{key}={_short(value)}" for key, value in trial["point"].items())]
            for trial in sorted(result["trials"], key=lambda trial: -(trial["val_accuracy"] or 0))
        ]  # fmt: skip
        parts += ["<h2>Trials</h2>", _table(["trial", "", "val accuracy", "epochs", "params", "values"], cells)]
    parts += ["<h2>Space</h2>", f"<pre>{html.escape(result['space'])}</pre>"]
    name = html.escape(result["name"])
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{name}</title>"
    style = f"<style>{_style(LIGHT)}@media screen and (prefers-color-scheme:dark){{{_style(DARK)}}}</style>"
    return f"<!doctype html><html lang=en><head>{head}{style}</head><body>{''.join(parts)}</body></html>\n"


def pareto(trials: Trials) -> Drawing | None:
    """Draw validation accuracy over macs, and the front: no trial has fewer macs and is as accurate."""
    points = [(float(trial["macs"]), trial["val_accuracy"], trial["slot"]) for trial in trials if trial["macs"]]
    if len(points) < 2:
        return None
    x, y = _span([macs for macs, _, _ in points]), value_axis([value for _, value, _ in points], percent=True)

    def place(macs: float, value: float) -> tuple[float, float]:
        return LEFT + (WIDTH - LEFT - 40) * x.place(macs), TOP + PLOT * (1 - y.place(value))

    front: list[tuple[float, float]] = []
    for macs, value, _ in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((macs, value))
    shapes = [*_frame("Validation accuracy by macs", x, y), Stroke(tuple(place(*point) for point in front), "s0", 2.0)]
    shapes += [
        Stroke((place(macs, value),), "s1", 2.0, title=f"trial {slot}: {value:.2%}") for macs, value, slot in points
    ]
    text = f"{len(points)} trials; the front: " + ", ".join(f"{macs:,.0f} macs {value:.2%}" for macs, value in front)
    return Drawing(WIDTH, TOP + PLOT + 50, "Validation accuracy by macs", text, tuple(shapes))


def importance(found: dict[str, float]) -> Drawing | None:
    """Draw how much each key tells good trials from the others."""
    if not found:
        return None
    shapes: list[Stroke | Label] = [Label(LEFT, 24, "Importance of each key", colour="ink", size=14, bold=True)]
    for number, (name, value) in enumerate(found.items()):
        y = TOP + 14 + 24 * number
        shapes.append(Label(LEFT - 10, y + 4, name[-28:], "end", "ink"))
        shapes.append(Stroke(((LEFT, y), (LEFT + max(1.0, 400 * value), y)), "s0", 12.0, title=f"{name}: {value:.0%}"))
        shapes.append(Label(LEFT + 400 * value + 14, y + 4, f"{value:.0%}"))
    text = ", ".join(f"{name} {value:.0%}" for name, value in found.items())
    return Drawing(WIDTH, TOP + 24 * len(found) + 20, "Importance of each key", text, tuple(shapes))


def coordinates(trials: Trials, found: dict[str, float]) -> Drawing | None:
    """Draw every trial as a line over the values of its keys, the most important ones first, and its accuracy."""
    keys = sorted({key for trial in trials for key in trial["point"]}, key=lambda key: -found.get(key, 0.0))[:8]
    if len(trials) < 2 or not keys:
        return None
    columns = {key: _places([trial["point"].get(key) for trial in trials]) for key in keys}
    columns["val accuracy"] = _places([trial["val_accuracy"] for trial in trials])
    across = [60 + (WIDTH - 120) * number / len(keys) for number in range(len(columns))]
    shapes: list[Stroke | Label] = [Label(20, 24, "Values of each trial", colour="ink", size=14, bold=True)]
    for (name, (_, low, high)), x in zip(columns.items(), across, strict=True):
        shapes += [Stroke(((x, TOP + 24), (x, TOP + PLOT)), "axis"), Label(x, TOP + 14, high, "middle", size=10)]
        shapes += [Label(x, TOP + PLOT + 14, low, "middle", size=10)]
        shapes += [Label(x, TOP + PLOT + 30, name.removeprefix("network.")[-18:], "middle", "ink", 10)]
    order = sorted(range(len(trials)), key=lambda number: trials[number]["val_accuracy"])
    for rank, number in enumerate(order):
        good = rank >= len(order) * (1 - GOOD)
        line = tuple(
            (x, TOP + PLOT - (PLOT - 24) * heights[number])
            for (heights, _, _), x in zip(columns.values(), across, strict=True)
            if heights[number] is not None
        )
        name = f"trial {trials[number]['slot']}: {trials[number]['val_accuracy']:.2%}"
        shapes.append(Stroke(line, "s1" if good else "muted", 1.5, opacity=1.0 if good else 0.35, title=name))
    text = f"{len(trials)} trials over {', '.join(keys)}; the best quarter stands out"
    return Drawing(WIDTH, TOP + PLOT + 50, "Values of each trial", text, tuple(shapes))


def _places(values: Sequence[Any]) -> tuple[list[Any], str, str]:
    """Return heights from 0 to 1 (None where there is no value), and the texts of the lowest and the highest."""
    known = [value for value in values if value is not None]
    if all(isinstance(value, int | float) for value in known):
        low, high = min(known), max(known)
        span = (high - low) or 1.0
        return [None if value is None else (value - low) / span for value in values], _short(low), _short(high)
    names = sorted({_short(value) for value in known})
    return (
        [None if value is None else names.index(_short(value)) / max(1, len(names) - 1) for value in values],
        names[0][:14],
        names[-1][:14],
    )


def _frame(title: str, x: Axis, y: Axis) -> Iterable[Stroke | Label]:
    bottom, right = TOP + PLOT, WIDTH - 40
    yield Label(LEFT, 24, title, colour="ink", size=14, bold=True)
    for value, text in y.ticks:
        height = TOP + PLOT * (1 - y.place(value))
        yield Stroke(((LEFT, height), (right, height)), "axis" if height == bottom else "grid")
        yield Label(LEFT - 8, height + 4, text, "end")
    for value, text in x.ticks:
        across = LEFT + (right - LEFT) * x.place(value)
        yield Stroke(((across, bottom), (across, bottom + 4)), "axis")
        yield Label(across, bottom + 18, text, "middle")


def _span(values: Sequence[float]) -> Axis:
    """Return a logarithmic axis over macs, marked at its ends."""
    low, high = min(values), max(values)
    high = high if high > low else 2 * low
    middle = math.sqrt(low * high)
    return Axis(low, high, tuple((value, f"{value / 1e6:,.3g} M macs") for value in (low, middle, high)), log=True)


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th scope=col>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


def _style(colours: dict[str, str]) -> str:
    return STYLE.replace("PAPER", colours["paper"]).replace("INK", colours["ink"]).replace("GRID", colours["grid"])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _short(value: Any) -> str:
    return (
        f"{value:.4g}"
        if isinstance(value, float)
        else ",".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )
