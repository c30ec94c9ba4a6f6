"""Thumbnails of validation images as PNG data URIs, read from where the run's data is; never from the test split."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from resfit.data.sources import load_split
from resfit.errors import DataError, ResfitError
from resfit.evaluation.config import rule_from
from resfit.reporting.facts import Facts

SIDES = (96, 64, 48, 32, 16)  # pixels of a thumbnail at most: the first at which all have room


def thumbnails(facts: Facts, rows: Sequence[int], room: int, data: str | Path | None) -> tuple[dict[int, str], str]:
    """Return a data URI by row of the validation split, `room` bytes in all at most, and why there are none, or "".

    Rows that have no room are left out, the last ones first.
    """
    if not rows:
        return {}, ""
    from resfit.evaluation.holdout import find_source  # brings torch

    try:
        rule, held = rule_from(facts.info["pixel_rule"]), facts.recipe.data
        val = load_split(find_source(facts.run, data), "val", rule, held.val_fraction, held.group_by)
        if val.fingerprint != facts.info["data"]["val"]:
            raise DataError(
                f"{val.source}: its validation split is not the one the run chose on. Name the run's own data."
            )
        known = [row for row in rows if 0 <= row < len(val)]
        pixels = val.images[np.array(known, np.int64)]
    except (ResfitError, OSError, LookupError, TypeError) as error:
        return {}, " ".join(str(error).split())
    return encode(dict(zip(known, pixels, strict=True)), room), ""


def encode(pixels: dict[int, np.ndarray], room: int, form: str = "PNG") -> dict[int, str]:
    """Return the data URIs of images uint8 (3, H, W), as large as `room` bytes for all allow; the last may be missing."""
    made: dict[int, str] = {}
    for side in SIDES:
        made = {row: data_uri(image, side, form) for row, image in pixels.items()}
        if sum(map(len, made.values())) <= room:
            return made
    kept: dict[int, str] = {}
    for row, uri in made.items():
        room -= len(uri)
        if room >= 0:
            kept[row] = uri
    return kept


def data_uri(pixels: np.ndarray, side: int, form: str = "PNG") -> str:
    """Return an image uint8 (3, H, W) as a PNG or WEBP of at most `side` pixels a side."""
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, form, **({"optimize": True} if form == "PNG" else {"quality": 85}))
    return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
