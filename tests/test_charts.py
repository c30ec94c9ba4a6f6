"""Axes against hand-computed ticks, the SVG read back by an XML parser, the PNG by Pillow, the palette by its two standards."""

import io
import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from resfit.charts import Panel, Series, epoch_axis, layout, value_axis
from resfit.drawing import DARK, LIGHT, SERIES_DARK, SERIES_LIGHT, to_png, to_svg

SVG = "{http://www.w3.org/2000/svg}"
ACCURACY = (0.352, 0.61, 0.72, 0.798, 0.93)
LOSS = (1.62, 1.1, 0.7, 0.41, 0.19)


def curve(values, start=1):
    return tuple(enumerate(values, start))


def chart(name="r4-lighter"):
    accuracy = Panel(
        "Accuracy",
        "",
        (
            Series(name, "train", 0, curve([0.3, 0.5, 0.7, 0.9, 1.0])),
            Series(name, "val", 0, curve(ACCURACY)),
            Series("other", "val", 1, ((2, 0.5),)),
        ),
        percent=True,
    )
    loss = Panel(
        "Loss", "val: nll", (Series(name, "val", 0, curve(LOSS)), Series(name, "val", 0, curve(LOSS), faint=True))
    )
    return layout([accuracy, loss], "what it shows")


@pytest.mark.parametrize(
    ("last", "ticks"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (10, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (25, [1, 5, 10, 15, 20, 25]),
        (50, [1, 10, 20, 30, 40, 50]),
        (75, [1, 10, 20, 30, 40, 50, 60, 70]),
        (200, [1, 25, 50, 75, 100, 125, 150, 175, 200]),
        (500, [1, 100, 200, 300, 400, 500]),
    ],
)
def test_epochs_begin_at_1(last, ticks):
    axis = epoch_axis(last)
    assert [tick for tick, _ in axis.ticks] == ticks
    assert [text for _, text in axis.ticks] == [f"{tick}" for tick in ticks]
    if last > 1:
        assert (axis.low, axis.high, axis.place(1), axis.place(last)) == (1, last, 0, 1)
    else:
        assert axis.place(1) == 0.5


@pytest.mark.parametrize(
    ("values", "percent", "ticks"),
    [
        (ACCURACY, True, ["30%", "40%", "50%", "60%", "70%", "80%", "90%", "100%"]),
        ((0.93, 0.9412), True, ["93.0%", "93.2%", "93.4%", "93.6%", "93.8%", "94.0%", "94.2%"]),
        ((1.0, 1.0), True, ["95%", "96%", "97%", "98%", "99%", "100%"]),
        ((0.0, 0.0), True, ["0%", "1%", "2%", "3%", "4%", "5%"]),
        (LOSS, False, ["0.00", "0.25", "0.50", "0.75", "1.00", "1.25", "1.50", "1.75"]),
        ((2.30, 2.26), False, ["2.260", "2.265", "2.270", "2.275", "2.280", "2.285", "2.290", "2.295", "2.300"]),
        ((0.0, 7.9), False, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]),
        ((900.0, 2.0, 1.9, 0.5, 1.0), False, ["0.1", "1", "10", "100", "1000"]),
        ((40.0, 1.0, 1.0, 0.9, 1.0), False, ["0.5", "1", "2", "5", "10", "20", "50"]),
        ((40.0, 1.0, 1.0, 0.0, 1.0), False, ["0", "5", "10", "15", "20", "25", "30", "35", "40"]),
    ],
)
def test_value_ticks(values, percent, ticks):
    axis = value_axis(values, percent)
    assert [text for _, text in axis.ticks] == ticks
    assert all(-1e-9 <= axis.place(value) <= 1 + 1e-9 for value in values)
    assert axis.place(axis.low) == 0
    assert axis.place(axis.high) == 1


def test_a_logarithmic_axis_places_by_ratio():
    axis = value_axis((900.0, 2.0, 1.9, 0.5, 1.0))
    assert [axis.place(value) for value in (0.1, 1, 10, 100, 1000)] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def parse(drawing):
    return ElementTree.fromstring(to_svg(drawing))


def points(element):
    return np.array([[float(n) for n in pair.split(",")] for pair in element.get("points").split()])


def scale(labels, read):
    """Fit the line from the ticks' texts to where they stand, as a reader's ruler does; a tick not on it is an error."""
    values, places = np.array([read(text) for text, _ in labels]), np.array([place for _, place in labels])
    slope, start = np.polyfit(values, places, 1)
    assert np.abs(values * slope + start - places).max() < 0.02
    return lambda value: np.asarray(value) * slope + start


def test_every_point_lies_where_the_ticks_say():
    root = parse(chart())
    texts = [(e.text, float(e.get("x")), float(e.get("y")), e.get("text-anchor")) for e in root.iter(f"{SVG}text")]
    middle = float(root.get("viewBox").split()[2]) / 2
    lines = {e.find(f"{SVG}title").text: e for e in root.iter(f"{SVG}polyline") if e.find(f"{SVG}title") is not None}
    epochs = [(t, x) for t, x, _, anchor in texts if anchor == "middle" and t.isdigit()]
    for title, wanted, left in (("accuracy", ACCURACY, True), ("loss", LOSS, False)):
        ticks = [(t, y - 4) for t, x, y, anchor in texts if anchor == "end" and (x < middle) == left]
        across = scale([(t, x) for t, x in epochs if (x < middle) == left], int)
        up = scale(ticks, lambda text: float(text.rstrip("%")) / (100 if text.endswith("%") else 1))
        found = points(lines[f"r4-lighter, val {title}"])
        np.testing.assert_allclose(found[:, 0], across(range(1, 6)), atol=0.02)
        np.testing.assert_allclose(found[:, 1], up(wanted), atol=0.02)
    (dot,) = root.iter(f"{SVG}circle")  # a run of a single point
    assert dot.find(f"{SVG}title").text == "other, val accuracy"
    assert float(dot.get("cx")) == pytest.approx(float(points(lines["r4-lighter, val accuracy"])[1, 0]))


def test_train_is_dashed_and_a_seed_faint():
    root = parse(chart())
    curves = [e for e in root.iter(f"{SVG}polyline") if e.find(f"{SVG}title") is not None]
    dashed = {e.find(f"{SVG}title").text for e in curves if e.get("stroke-dasharray")}
    assert dashed == {"r4-lighter, train accuracy"}
    assert [e.get("opacity") for e in curves if "loss" in e.find(f"{SVG}title").text] == [
        "0.35",
        None,
    ]  # the mean above
    legend = [e.text for e in root.iter(f"{SVG}text")][:4]
    assert legend == ["r4-lighter", "other", "train", "val"]


def test_the_svg_is_accessible_and_asks_for_nothing():
    text = to_svg(chart("<script>&\"'\n\x01\udc80"))
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img"
    ids = root.get("aria-labelledby").split()
    named = {e.get("id"): e.text for e in root if e.get("id")}
    assert [named[i] for i in ids] == ["Accuracy and loss by epoch", "what it shows"]
    assert "prefers-color-scheme:dark" in text
    assert re.findall(r"https?://[^\s\"']+", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"href|<script|@import|url\(|<image|<foreignObject", text)
    assert {e.tag for e in root.iter()} <= {
        SVG + t for t in ("svg", "title", "desc", "style", "rect", "polyline", "circle", "text")
    }
    assert "<script>&\"'���" in [e.text for e in root.iter(f"{SVG}text")]


def test_all_shapes_lie_within_the_picture_however_long_the_legend():
    names = [f"{'long-name-' * 9}{n}" for n in range(8)]
    panel = Panel("Accuracy", "", tuple(Series(name, "val", n, curve(ACCURACY)) for n, name in enumerate(names)), True)
    root = parse(layout([panel], ""))
    width, height = (float(n) for n in root.get("viewBox").split()[2:])
    for e in root.iter(f"{SVG}polyline"):
        assert ((points(e) >= 0) & (points(e) <= (width, height))).all()
    for e in root.iter(f"{SVG}text"):
        assert 0 <= float(e.get("y")) <= height
        assert len(e.text) <= 60
    rows = [float(e.get("y")) for e in root.iter(f"{SVG}text") if e.text.startswith("long-name")]
    assert rows == sorted(set(rows))  # one a row, none upon another


def test_the_png_is_the_same_picture(need):
    need("matplotlib")
    drawing = chart("a$b$c")  # no formula
    image = Image.open(io.BytesIO(to_png(drawing)))
    assert image.size == (2 * drawing.width, 2 * drawing.height)
    pixels = np.asarray(image.convert("RGB"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    blue = [int(SERIES_LIGHT[0][i : i + 2], 16) for i in (1, 3, 5)]
    for e in parse(drawing).iter(f"{SVG}polyline"):
        title = e.find(f"{SVG}title")
        if title is not None and "val" in title.text and not e.get("opacity"):
            for x, y in points(e):
                assert np.abs(pixels[int(2 * y), int(2 * x)].astype(int) - blue).max() < 40, (title.text, x, y)


def linear(colour):
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_contrast_is_that_of_wcag(theme):
    def contrast(a, b):
        low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (a, b))
        return (high + 0.05) / (low + 0.05)

    for name in ("ink", "muted"):
        assert contrast(theme[name], theme["paper"]) >= 4.5  # text
    for name in theme:
        if re.fullmatch(r"s\d", name):
            assert contrast(theme[name], theme["paper"]) >= 3  # graphics


# Machado et al. 2009, severity 1.0, from the paper's table
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TRITAN = [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]


@pytest.mark.parametrize("seen", [np.eye(3), PROTAN, DEUTAN, TRITAN], ids=["all", "protan", "deutan", "tritan"])
@pytest.mark.parametrize("palette", [SERIES_LIGHT, SERIES_DARK], ids=["light", "dark"])
def test_two_runs_are_never_the_same_colour_to_anyone(palette, seen):
    def oklab(colour):
        lms = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
        lms.append([0.0883024619, 0.2817188376, 0.6299787005])
        lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
        lab.append([0.0259040371, 0.7827717662, -0.8086757660])
        return np.array(lab) @ np.cbrt(np.array(lms) @ np.clip(np.array(seen) @ linear(colour), 0, 1))

    nearest = min(np.linalg.norm(oklab(a) - oklab(b)) for a, b in itertools.combinations(palette, 2))
    assert nearest > 0.075  # 0.02 is just noticeable; Okabe and Ito's own seven are 0.076 apart at the nearest
