"""The page of `data check`: what is wrong with images, shown by them, and what a network will see of them. No torch.

Pictures are of any split, as they come in; the network is shown images of train. Nothing is scored.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resfit import durable
from resfit.data.checking import check
from resfit.data.decode import read_header
from resfit.data.images import PixelRule
from resfit.data.keys import read_file
from resfit.data.listing import Blob, Listing, to_rule
from resfit.data.sources import open_source
from resfit.errors import DataError
from resfit.reporting.page import fill, html_file
from resfit.reporting.pictures import SIDES, encode

ROOM = 1_300_000  # bytes for pictures, of a page of 2 MB
CLASSES = 100  # whose samples are shown; of a set with more, the first
ROWS = 1_000  # classes of the table of counts

Spot = tuple[str, int]  # a split and a row of it
Row = dict[str, Any]


def check_on_page(
    source: str | Path,
    out: str | Path,
    rule: PixelRule,
    near: bool = True,
    group_by: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Check a source as `checking.check` does, write one HTML page of it to `out`, and return the result, with `page`.

    `rule` says how images are shown as a network sees them. `page`: `out`, `bytes`. Raises what `check` does, UsageError for
    an `out` that is no .html, ResourceError where it cannot be written.
    """
    target = html_file(out)
    durable.require_writable(target.parent)
    value = check(source, near, group_by, say)
    seen, problems = _pictures(source, value, rule)
    splits = value["splits"]
    classes = [{"name": name, "counts": [splits[s]["classes"][name] for s in splits]} for name in value["samples"]]
    page = fill(
        "datapage.html",
        value=value,
        rule=rule,
        problems=[problem | {"shown": shown} for problem, shown in zip(value["problems"], problems, strict=True)],
        fatal=sum(problem["fatal"] for problem in value["problems"]),
        classes=classes[:ROWS],
        largest=max((count for row in classes for count in row["counts"]), default=0),
        histograms=[
            _bars("Shorter side, pixels", value["histograms"]["shorter_side"], lambda x: f"{x:g}"),
            _bars("Width over height", value["histograms"]["aspect"], lambda x: f"{x:.2f}"),
        ],
        seen=seen,
    )
    durable.write_bytes(target, page)
    return value | {"page": {"out": str(target), "bytes": len(page)}}


def _bars(title: str, bins: list[Row], write: Callable[[float], str]) -> Row:
    most = max((row["images"] for row in bins), default=1)
    rows = []
    for row in bins:
        high = row["high"]
        label = f"{write(row['low'])} or more" if high is None else f"{write(row['low'])} to under {write(high)}"
        rows.append({"label": label, "images": row["images"], "share": row["images"] / most})
    return {"title": title, "rows": rows}


def _pictures(source: str | Path, value: Row, rule: PixelRule) -> tuple[list[Row], list[list[Row]]]:
    """Return samples by class as they come in and as the network sees them, and each problem's examples with pictures."""
    samples = {name: [(split, row) for split, row in spots] for name, spots in list(value["samples"].items())[:CLASSES]}
    examples = [[[(split, row) for split, row in spots] for spots in p["places"]] for p in value["problems"]]
    wanted = {spot for spots in samples.values() for spot in spots}
    wanted |= {spot for problem in examples for spots in problem for spot in spots}
    pixels: dict[tuple[str, Spot], np.ndarray] = {}
    shapes: dict[Spot, str] = {}
    for spot, data, listing in _read(source, wanted):
        try:
            original = _original(data, listing, spot[1])
            seen = to_rule(data, rule, listing, spot[1])
        except DataError:
            continue  # it is one of the problems
        pixels["in", spot], shapes[spot] = original
        pixels["seen", spot] = np.asarray(seen)
    asked = [("in", spot) for problem in examples for spots in problem for spot in spots]
    asked += [(kind, spot) for spots in samples.values() for spot in spots for kind in ("in", "seen")]
    order = [key for key in dict.fromkeys(asked) if key in pixels]
    uris = encode({number: pixels[key] for number, key in enumerate(order)}, ROOM, "WEBP")
    found = {key: uris.get(number) for number, key in enumerate(order)}
    rows = [
        {
            "name": name,
            "pairs": [
                {"in": found["in", spot], "seen": found["seen", spot], "shape": shapes[spot]}
                for spot in spots
                if found.get(("in", spot)) and found.get(("seen", spot))
            ],
        }
        for name, spots in samples.items()
    ]
    problems = [
        [
            {"text": text, "pictures": [{"uri": uri, "split": s[0]} for s in spots if (uri := found.get(("in", s)))]}
            for text, spots in zip(problem["examples"], places, strict=True)
        ]
        for problem, places in zip(value["problems"], examples, strict=True)
    ]
    return [row for row in rows if row["pairs"]], problems


def _read(source: str | Path, wanted: set[Spot]) -> Iterable[tuple[Spot, bytes | np.ndarray, Listing]]:
    """Yield the bytes or raw pixels of some images."""
    opened = open_source(source)
    for split in opened.splits:
        rows = sorted(row for where, row in wanted if where == split)
        listing = opened.list_split(split)
        blobs: Iterable[tuple[int, Blob]] = listing.blobs(rows) if rows else ()
        for row, blob in blobs:
            try:
                yield (split, row), read_file(blob) if isinstance(blob, str) else blob, listing
            except DataError:
                continue


def _original(data: bytes | np.ndarray, listing: Listing, row: int) -> tuple[np.ndarray, str]:
    """Return an image in its own shape, at most as large as a thumbnail, uint8 (3, H, W), and what its size was."""
    try:
        height, width = data.shape[:2] if isinstance(data, np.ndarray) else read_header(data)[1:3]
    except ValueError as error:
        raise DataError(f"{listing.name(row)}: {error}. Replace it.") from error
    side = min(SIDES[0], max(height, width))
    square = to_rule(data, PixelRule(side), listing, row)
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(np.ascontiguousarray(square.transpose(1, 2, 0)))
    if image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1), f"{width}×{height}"
