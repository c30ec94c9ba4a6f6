"""Line charts over epochs: ticks, domains and places of all curves, once, for both of `drawing`'s writers. No torch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from resfit.drawing import Drawing, Label, Stroke, short

LEFT, GAP, RIGHT, TOP, BOTTOM, HEIGHT = 56, 64, 24, 16, 48, 270  # pixels; HEIGHT is that of a panel's plot


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a run, on "train" (dashed) or "val" (solid): `points` are (epoch, value), epochs from 1.

    `colour` is a place in the palette; one seed of several is `faint`.
    """

    run: str
    split: str
    colour: int
    points: tuple[tuple[int, float], ...]
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: title, a note beside it, its lines; values are fractions, shown as percent, where `percent`."""

    title: str
    note: str
    series: tuple[Series, ...]
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A domain and its ticks (value, text)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where `value` lies from low (0) to high (1)."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def epoch_axis(last: int) -> Axis:
    """Return the axis of epochs 1 to `last`: a tick at 1 and at every multiple of a round number."""
    if last == 1:
        return Axis(0.5, 1.5, ((1, "1"),))
    steps = (1, 5, *(factor * 10**power for power in range(9) for factor in (10, 25, 50)))
    step = next(step for step in steps if last <= (10 if step == 1 else 8) * step)
    ticks = sorted({1, *range(step, last + 1, step)})
    return Axis(1, last, tuple((tick, f"{tick:,}") for tick in ticks))


def value_axis(values: Sequence[float], percent: bool = False) -> Axis:
    """Return an axis with round ticks around all values; a fraction's stays within [0, 1], a loss's begins at 0 if near.

    A loss whose largest value is 20 times its median or more is on a logarithmic axis, if all are positive.
    """
    low, high = min(values), max(values)
    if not percent and low > 0 and high >= 20 * sorted(values)[len(values) // 2]:
        return log_axis(low, high)
    if not percent and 0 <= low < high / 2:
        low = 0.0
    if high - low < 1e-6 * max(1.0, abs(high)):
        low, high = (0.0 if 0 <= low < 0.05 else low - 0.05), high + 0.05
    high = min(1.0, high) if percent else high
    step = _round_step((high - low) / 8)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    scale = 100 if percent else 1
    digits = next(d for d in range(13) if math.isclose(round(step * scale, d), step * scale) or d == 12)
    unit = "%" if percent else ""
    ticks = tuple((k * step, f"{k * step * scale:.{digits}f}{unit}") for k in range(first, last + 1))
    return Axis(ticks[0][0], ticks[-1][0], ticks)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= least * (1 - 1e-9))


def log_axis(low: float, high: float) -> Axis:
    """Return a logarithmic axis around positive values, with ticks at 1, 2 and 5 times the powers of ten, or at these alone."""
    decades = math.log10(high / low)
    parts = (1, 2, 5) if decades < 3 else (1,)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    found = [float(f"{m}e{power}") for power in powers for m in parts]
    first = max(i for i, tick in enumerate(found) if tick <= low)
    last = min(i for i, tick in enumerate(found) if tick >= high)
    ticks = found[first : last + 1]
    return Axis(ticks[0], ticks[-1], tuple((tick, f"{tick:g}") for tick in ticks), log=True)


def layout(panels: Sequence[Panel], description: str, plot: int | None = None) -> Drawing:
    """Return the drawing of panels side by side under one legend; every panel has at least one point, `plot` pixels wide."""
    plot = plot or (400 if len(panels) > 1 else 560)
    width = LEFT + len(panels) * (plot + GAP) - GAP + RIGHT
    legend, below = _legend(panels, width)
    shapes = list(legend)
    top = below + 34
    for number, panel in enumerate(panels):
        shapes += _panel(panel, LEFT + number * (plot + GAP), top, plot)
    title = " and ".join(panel.title for panel in panels) + " by epoch"
    return Drawing(width, top + HEIGHT + BOTTOM, title.capitalize(), description, tuple(shapes))


def _panel(panel: Panel, left: float, top: float, plot: float) -> Iterable[Stroke | Label]:
    points = [point for series in panel.series for point in series.points]
    x, y = epoch_axis(max(epoch for epoch, _ in points)), value_axis([value for _, value in points], panel.percent)
    bottom = top + HEIGHT
    yield Label(left, top - 14, panel.title, colour="ink", size=14, bold=True)
    note = ", ".join(part for part in (panel.note, "log scale" if y.log else "") if part)
    if note:
        yield Label(left + 0.66 * 14 * len(panel.title) + 6, top - 14, note)
    for value, text in y.ticks:
        height = bottom - HEIGHT * y.place(value)
        yield Stroke(((left, height), (left + plot, height)), "axis" if height == bottom else "grid")
        yield Label(left - 8, height + 4, text, "end")
    for value, text in x.ticks:
        across = left + plot * x.place(value)
        yield Stroke(((across, bottom), (across, bottom + 4)), "axis")
        yield Label(across, bottom + 18, text, "middle")
    yield Label(left + plot / 2, bottom + 36, "epoch", "middle")
    for series in sorted(panel.series, key=lambda series: not series.faint):  # means above their seeds
        placed = tuple((left + plot * x.place(e), bottom - HEIGHT * y.place(v)) for e, v in series.points)
        dashed = series.split == "train"
        stroke, opacity = (1.0, 0.35) if series.faint else (1.5 if dashed else 2.0, 1.0)
        name = f"{series.run}, {series.split} {panel.title.lower()}"
        yield Stroke(placed, f"s{series.colour}", stroke, dashed, opacity, name)


def _legend(panels: Sequence[Panel], width: int) -> tuple[list[Stroke | Label], int]:
    """Return the legend's shapes, in as many rows as it takes, and the height where it ends."""
    strong = [series for panel in panels for series in panel.series if not series.faint]
    runs = {series.run: f"s{series.colour}" for series in strong}
    entries = [(short(run), colour, False, "ink") for run, colour in runs.items()]
    entries += [(split, "muted", split == "train", "muted") for split in sorted({series.split for series in strong})]
    shapes: list[Stroke | Label] = []
    x, y = float(LEFT), TOP + 6
    for text, colour, dashed, ink in entries:
        taken = 30 + 7.4 * len(text) + 22  # 7.4: more than a character of 12 pixels takes on average
        if x > LEFT and x + taken - 22 > width:
            x, y = float(LEFT), y + 20
        shapes.append(Stroke(((x, y), (x + 22, y)), colour, 2.0, dashed))
        shapes.append(Label(x + 30, y + 4, text, colour=ink))
        x += taken
    return shapes, y + 8
