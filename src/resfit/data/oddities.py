"""What looks odd about an image file that can be decoded: its size, shape, name, frames, or that nothing is on it."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from resfit.data.decode import read_header

FLAT = 4  # levels by which a channel of one flat colour may vary: what JPEG makes of it
NARROW = 4  # times as long as wide; squashed to a square little is left of it
TINY = 8  # pixels of the shorter side; fewer than the smallest network takes
SMALL = 8  # or as many times smaller than the set's median
KINDS = ("tiny", "long and narrow", "one flat colour", "name that disagrees with the content", "more than one frame")

_SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".bmp": "BMP", ".gif": "GIF", ".webp": "WEBP"}
_SUFFIXES |= {".tif": "TIFF", ".tiff": "TIFF", ".ppm": "PPM", ".pgm": "PPM"}

Note = tuple[str, str]  # one of KINDS, and what is said of the image


def look(data: bytes | np.ndarray, name: str, pixels: np.ndarray) -> tuple[int, int, list[Note]]:
    """Return height and width, upright, of an image that was decoded to `pixels` uint8 (3, S, S), and what is odd by itself."""
    notes: list[Note] = []
    if isinstance(data, np.ndarray):
        height, width = data.shape[:2]
    else:
        form, height, width, several = read_header(data)
        promised = _SUFFIXES.get(PurePosixPath(name).suffix.lower(), form)
        if form.replace("DIB", "BMP") != promised:
            notes.append(("name that disagrees with the content", f"is {form}"))
        if several:
            notes.append(("more than one frame", "only the first is used"))
    if int((pixels.max((1, 2)).astype(np.int64) - pixels.min((1, 2))).max()) <= FLAT:
        notes.append(("one flat colour", ""))
    return height, width, notes


def odd_shapes(shapes: np.ndarray) -> Sequence[list[Note]]:
    """Return what is odd about the shapes of a set's images, int64 (N, 2): height and width."""
    shorter, longer = shapes.min(1, initial=2**31), shapes.max(1, initial=1)
    least = max(TINY, float(np.median(shorter)) / SMALL) if len(shapes) else TINY
    notes: list[list[Note]] = [[] for _ in shapes]
    for i in np.flatnonzero((shorter < least) | (longer > NARROW * shorter)):
        said = f"{shapes[i, 1]}x{shapes[i, 0]} pixels"
        notes[i] += [("tiny", said)] if shorter[i] < least else []
        notes[i] += [("long and narrow", said)] if longer[i] > NARROW * shorter[i] else []
    return notes


def histogram(values: np.ndarray, edges: Sequence[float]) -> list[dict[str, float | int | None]]:
    """Return the counts of values (N,) between edges, low <= value < high, from the first that is not 0 to the last one.

    The last bin has no upper edge (None).
    """
    places = np.searchsorted(edges, values, side="right") - 1
    counts = np.bincount(np.maximum(places, 0), minlength=len(edges))
    used = np.flatnonzero(counts)
    if not len(used):
        return []
    highs = [*edges[1:], None]
    return [
        {"low": edges[k], "high": highs[k], "images": int(counts[k])} for k in range(int(used[0]), int(used[-1]) + 1)
    ]
