"""The drawings of a report: numbers in, a `Figure` out, whose points can be asked with pointer and arrow keys. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from resfit.charts import Axis, layout, log_axis, value_axis
from resfit.curves import METRICS, Curves, describe, panels
from resfit.drawing import Drawing, Label, Stroke, short

WIDTH, LEFT, RIGHT, TOP, PLOT, BOTTOM = 440, 60, 20, 56, 250, 46  # pixels: a phone shows them at nearly full size
CURVE = 350  # pixels of a curve's plot
Pair = tuple[float, float]


@dataclass(frozen=True)
class Figure:
    """A drawing, and what it says at places: `points` are {x, y or None, text}, in pixels of the drawing."""

    drawing: Drawing
    points: list[dict[str, Any]]


@dataclass(frozen=True)
class Series:
    """Points (x, y) of one colour, as dots, a line, or both; `texts` say what each is; `whiskers` are (low, high) of y."""

    name: str
    points: Sequence[Pair]
    texts: Sequence[str] = ()
    colour: str = "s0"
    line: bool = True
    dots: bool = True
    dashed: bool = False
    labels: Sequence[str] = ()
    whiskers: Sequence[Pair] = ()


def isolated(name: str) -> str:
    """Return a name, cleaned and short, in marks that keep its direction of writing from the text around it."""
    return f"\N{FIRST STRONG ISOLATE}{short(name, 40)}\N{POP DIRECTIONAL ISOLATE}"


def curves(runs: Sequence[Curves]) -> list[Figure]:
    """Return a figure each of accuracy and loss by epoch; a run that has none of one has no figure of it."""
    made = []
    for metric, (_, _, kinds) in METRICS.items():
        if not any(seed[key] for run in runs for seed in run.seeds for _, key in kinds):
            continue
        named = [replace(run, name=short(run.name, 40)) for run in runs]
        (panel,) = panels(named, [metric])
        drawing = layout([panel], describe(named), CURVE)
        strong = [one for one in panel.series if not one.faint]
        last = max(epoch for one in panel.series for epoch, _ in one.points)
        points = []
        for epoch in sorted({epoch for one in strong for epoch, _ in one.points}):
            values = [(one, dict(one.points).get(epoch)) for one in strong]
            said = [
                f"{one.split if len(runs) == 1 else isolated(one.run) + ' ' + one.split} {_value(value, panel.percent)}"
                for one, value in values
                if value is not None
            ]
            share = 0.5 if last == 1 else (epoch - 1) / (last - 1)
            points.append({"x": round(56 + CURVE * share, 1), "y": None, "text": f"epoch {epoch}: {', '.join(said)}"})
        made.append(Figure(drawing, points))
    return made


def _value(value: float, percent: bool) -> str:
    return f"{value:.2%}" if percent else f"{value:.4f}"


def reliability(calibration: dict[str, Any]) -> Figure:
    """Return accuracy over confidence by bin, as the network says it and after temperature scaling (Guo et al. 2017)."""
    series = [Series("perfect", ((0.0, 0.0), (1.0, 1.0)), colour="axis", dots=False, dashed=True)]
    for name, bins, colour in (
        ("as trained", calibration["bins"], "s0"),
        ("with temperature", calibration["scaled"]["bins"], "s1"),
    ):
        used = [row for row in bins if row["n"]]
        texts = [
            f"{name}, confidence {row['low']:.0%} to {row['high']:.0%}: mean {row['confidence']:.1%}, "
            f"accuracy {row['accuracy']:.1%}, n {row['n']:,}"
            for row in used
        ]
        series.append(Series(name, [(row["confidence"], row["accuracy"]) for row in used], texts, colour))
    text = f"Expected calibration error {calibration['ece']:.4f}, with temperature {calibration['scaled']['ece']:.4f}."
    return plane("Accuracy by confidence", "confidence", "accuracy", UNIT, UNIT, series, text)


def coverage(selective: dict[str, Any]) -> Figure:
    """Return the accuracy of the most confident images over the share of them that is answered."""
    points = sorted((row["coverage"], row["accuracy"], row["threshold"]) for row in selective["points"])
    texts = [f"answered {c:.0%}, confidence {t:.3f} or more: accuracy {a:.2%}" for c, a, t in points]
    y = value_axis([accuracy for _, accuracy, _ in points], percent=True)
    series = [Series("accuracy", [(c, a) for c, a, _ in points], texts, dots=len(points) <= 30)]
    title = "Accuracy when unsure images are left out"
    return plane(
        title, "share answered", "accuracy", UNIT, y, series, f"Area under risk-coverage {selective['aurc']:.4f}."
    )


def robustness(corruptions: dict[str, Any]) -> Figure:
    """Return the mean accuracy over all corruptions by strength; strength 0 is the clean image."""
    strengths = sorted({row["strength"] for row in corruptions["rows"]})
    points = [(0.0, corruptions["clean"])]
    for strength in strengths:
        found = [row["accuracy"] for row in corruptions["rows"] if row["strength"] == strength]
        points.append((float(strength), sum(found) / len(found)))
    texts = [f"strength {x:.0f}: mean accuracy {y:.2%}" if x else f"clean: {y:.2%}" for x, y in points]
    x = Axis(0, max(strengths), tuple((k, "clean" if k == 0 else f"{k}") for k in (0, *strengths)))
    y = value_axis([value for _, value in points], percent=True)
    return plane(
        "Accuracy by strength", "strength", "", x, y, [Series("mean over corruptions", points, texts)], texts[-1]
    )


def pareto(rows: Sequence[dict[str, Any]], key: str, split: str) -> Figure | None:
    """Return accuracy over `key` ("params", "macs") with intervals, and the front; None for fewer than two points.

    rows: {name, accuracy, interval or None, params, macs}.
    """
    if len(rows) < 2 or not all(row[key] > 0 for row in rows):
        return None
    points = [(float(row[key]), row["accuracy"]) for row in rows]
    front: list[Pair] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    bounds = [row["interval"] or [row["accuracy"]] * 2 for row in rows]
    whiskers = [(max(0.0, low), min(1.0, high)) for low, high in bounds]
    texts = [
        f"{isolated(row['name'])}: {row['accuracy']:.2%} ({low:.2%} to {high:.2%}), {row[key]:,} {key}"
        for row, (low, high) in zip(rows, whiskers, strict=True)
    ]
    counted = log_axis(0.9 * min(x for x, _ in points), 1.1 * max(x for x, _ in points))
    ticks = [tick for tick, _ in counted.ticks if len(counted.ticks) <= 6 or f"{tick:e}".startswith("1.0")]
    counted = replace(counted, ticks=tuple((tick, amount(tick)) for tick in ticks))
    y = value_axis([bound for pair in whiskers for bound in pair], percent=True)
    names = [short(row["name"], 24) for row in rows] if len(rows) <= 8 else []
    series = [
        Series("no other is smaller and as accurate", front, colour="s0", dots=False),
        Series("run", points, texts, "s1", line=False, labels=names, whiskers=whiskers),
    ]
    words = "; ".join(texts[:50])
    return plane(f"{split.capitalize()} accuracy by {key}", key, "accuracy", counted, y, series, words)


def amount(value: float) -> str:
    """Return a count in a few characters: 1.97M."""
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.3g}"


UNIT = Axis(0.0, 1.0, tuple((k / 5, f"{k * 20}%") for k in range(6)))


def plane(title: str, x_name: str, y_name: str, x: Axis, y: Axis, series: Sequence[Series], text: str) -> Figure:
    """Return series of points drawn over two axes, under a legend where there are several."""
    right, bottom = WIDTH - RIGHT, TOP + PLOT

    def place(point: Pair) -> Pair:
        return round(LEFT + (right - LEFT) * x.place(point[0]), 1), round(bottom - PLOT * y.place(point[1]), 1)

    shapes: list[Stroke | Label] = [Label(LEFT, 20, title, colour="ink", size=14, bold=True)]
    for value, words in y.ticks:
        height = bottom - PLOT * y.place(value)
        shapes.append(Stroke(((LEFT, height), (right, height)), "axis" if height == bottom else "grid"))
        shapes.append(Label(LEFT - 8, height + 4, words, "end"))
    for value, words in x.ticks:
        across, _ = place((value, y.low))
        shapes += [
            Stroke(((across, bottom), (across, bottom + 4)), "axis"),
            Label(across, bottom + 18, words, "middle"),
        ]
    shapes.append(Label((LEFT + right) / 2, bottom + 36, x_name, "middle"))
    across = float(LEFT)
    for one in series:
        look = ((across, 40.0), (across + 18, 40.0)) if one.line else ((across + 9, 40.0),)
        shapes += [Stroke(look, one.colour, 2.0, one.dashed), Label(across + 24, 44, one.name)]
        across += 24 + 7.0 * len(one.name) + 14
    for one in series:
        shapes += _shapes(one, place, (LEFT + right) / 2)
    asked = [
        {"x": place(point)[0], "y": place(point)[1], "text": said}
        for one in series
        for point, said in zip(one.points, one.texts, strict=False)
    ]
    return Figure(Drawing(WIDTH, bottom + BOTTOM, title, text, tuple(shapes)), asked)


def _shapes(one: Series, place: Any, middle: float) -> list[Stroke | Label]:
    placed = [place(point) for point in one.points]
    shapes: list[Stroke | Label] = []
    for (x, _), (low, high) in zip(one.points, one.whiskers, strict=False):
        shapes.append(Stroke((place((x, low)), place((x, high))), one.colour, 1.0, opacity=0.6))
    if one.line and len(placed) > 1:
        shapes.append(Stroke(tuple(placed), one.colour, 2.0, one.dashed, title=one.name))
    if one.dots:
        shapes += [Stroke((spot,), one.colour, 2.0) for spot in placed]
    for (across, height), name in zip(placed, one.labels, strict=False):
        side, anchor = (8, "start") if across < middle else (-8, "end")
        shapes.append(Label(across + side, height - 6, name, anchor, "ink", 11))
    return shapes
