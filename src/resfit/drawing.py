"""Lines and text in pixels, and the two writers that draw them: SVG, and PNG through matplotlib. No torch.

Colours: the first are those of Okabe & Ito 2008, "Color universal design"; the rest were searched for the largest
smallest distance in OKLab (Ottosson 2020) as seen with each colour blindness of Machado et al. 2009, "A physiologically-based
model for simulation of color vision deficiency". Each is at least 3:1 against its paper, light or dark.
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape

from resfit.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIGHT = {"paper": "#ffffff", "ink": "#1f2328", "muted": "#59636e", "grid": "#e4e7eb", "axis": "#8c959f"}
DARK = {"paper": "#0d1117", "ink": "#f0f6fc", "muted": "#9198a1", "grid": "#252b33", "axis": "#656c76"}
SERIES_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#a76ef8", "#992154", "#551302", "#00088f", "#5935be")
SERIES_DARK = ("#56b4e9", "#e69f00", "#009e73", "#a351cf", "#f0c2d8", "#c3fdc1", "#e44919", "#45788f")
LIGHT |= {f"s{i}": colour for i, colour in enumerate(SERIES_LIGHT)}
DARK |= {f"s{i}": colour for i, colour in enumerate(SERIES_DARK)}

DASH = (5, 3)
PNG_SCALE = 2
ALIGN: dict[str, Literal["left", "center", "right"]] = {"start": "left", "middle": "center", "end": "right"}


@dataclass(frozen=True, slots=True)
class Stroke:
    """A line through points in pixels, from the upper left; a single point is a dot. `title` names a curve."""

    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 1.0
    dashed: bool = False
    opacity: float = 1.0
    title: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """Text whose baseline starts, is centred or ends at (x, y) in pixels."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    colour: str = "muted"
    size: int = 12
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a writer draws, and nothing else; title and description are for those who do not see it."""

    width: int
    height: int
    title: str
    description: str
    shapes: tuple[Stroke | Label, ...]


def short(text: str, most: int = 60) -> str:
    """Return `text` on one line, without what XML or a font cannot hold, its middle left out beyond `most` characters."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return clean if len(clean) <= most else f"{clean[: most // 2 - 1]}…{clean[-most // 2 :]}"


def to_svg(drawing: Drawing, name: str = "", style: bool = True) -> str:
    """Return the drawing as a self-contained SVG that follows the reader's light or dark scheme.

    `name` tells its ids from those of another one in the same page, which may have `svg_style` once instead of in each.
    """
    w, h = drawing.width, drawing.height
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img"'
        f' aria-labelledby="title{name} desc{name}">',
        f'<title id="title{name}">{escape(drawing.title)}</title>',
        f'<desc id="desc{name}">{escape(short(drawing.description, 2000))}</desc>',
        *(["<style>" + svg_style() + "</style>"] if style else []),
        f'<rect class="paper" width="{w}" height="{h}" rx="6"/>',
    ]
    lines += [_svg_stroke(shape) if isinstance(shape, Stroke) else _svg_label(shape) for shape in drawing.shapes]
    return "\n".join([*lines, "</svg>", ""])


def svg_style() -> str:
    """Return the rules that every drawing of ours needs, light and dark."""
    lines = [
        "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}",
        ".line{fill:none;stroke-linecap:round;stroke-linejoin:round}",
        *_rules(LIGHT),
        "@media screen and (prefers-color-scheme:dark){",
        *_rules(DARK),
        "}",
    ]
    return "\n".join(lines)


def _rules(colours: dict[str, str]) -> list[str]:
    rules = [f".paper{{fill:{colours['paper']}}}"]
    for name, colour in colours.items():
        if name != "paper":
            rules.append(f".line.{name}{{stroke:{colour}}} .text.{name},.dot.{name}{{fill:{colour}}}")
    return rules


def _svg_stroke(stroke: Stroke) -> str:
    title = f"<title>{escape(short(stroke.title))}</title>" if stroke.title else ""
    faint = f' opacity="{stroke.opacity:g}"' if stroke.opacity < 1 else ""
    if len(stroke.points) == 1:
        ((x, y),) = stroke.points
        look = f'r="{1.5 * stroke.width:g}"{faint}'
        return f'<circle class="dot {stroke.colour}" cx="{x:.2f}" cy="{y:.2f}" {look}>{title}</circle>'
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in stroke.points)
    dash = f' stroke-dasharray="{DASH[0]} {DASH[1]}"' if stroke.dashed else ""
    look = f'stroke-width="{stroke.width:g}"{dash}{faint}'
    return f'<polyline class="line {stroke.colour}" points="{points}" {look}>{title}</polyline>'


def _svg_label(label: Label) -> str:
    weight = ' font-weight="600"' if label.bold else ""
    place = f'x="{label.x:.2f}" y="{label.y:.2f}" text-anchor="{label.anchor}" font-size="{label.size}"{weight}'
    return f'<text class="text {label.colour}" {place}>{escape(label.text)}</text>'


def to_png(drawing: Drawing) -> bytes:
    """Return the drawing as a PNG on white, twice its size, whatever the reader's matplotlibrc says.

    Raises MissingExtraError without matplotlib.
    """
    import numpy as np
    from PIL import Image

    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        message = "a .png: matplotlib is needed. Install it: pip install 'resfit[plots]', or write an .svg."
        raise MissingExtraError(message) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        size = (drawing.width / 100, drawing.height / 100)  # a pixel is 1/100 inch
        figure = Figure(figsize=size, dpi=100 * PNG_SCALE, facecolor=LIGHT["paper"])
        for shape in drawing.shapes:
            _add(figure, shape, drawing)
        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _add(figure: "Figure", shape: Stroke | Label, drawing: Drawing) -> None:
    from matplotlib.lines import Line2D

    w, h, point = drawing.width, drawing.height, 0.72  # a hundredth of an inch is 0.72 points
    if isinstance(shape, Label):
        text = figure.text(shape.x / w, 1 - shape.y / h, shape.text, fontsize=point * shape.size, parse_math=False)
        text.set_color(LIGHT[shape.colour])
        text.set_horizontalalignment(ALIGN[shape.anchor])
        text.set_fontweight("bold" if shape.bold else "normal")
        return
    xs, ys = [x / w for x, _ in shape.points], [1 - y / h for _, y in shape.points]
    line = Line2D(xs, ys, transform=figure.transFigure, color=LIGHT[shape.colour], alpha=shape.opacity)
    line.set(linewidth=point * shape.width, solid_capstyle="round", solid_joinstyle="round")
    if shape.dashed:
        line.set_linestyle((0, [length / shape.width for length in DASH]))  # in line widths
    if len(xs) == 1:
        line.set(marker="o", markersize=point * 3 * shape.width, markeredgewidth=0)
    figure.add_artist(line)
