"""Rows of text in columns for a terminal, by the places that characters take there. No torch."""

import unicodedata
from collections.abc import Sequence


def places(text: str) -> int:
    """Return how many places a text takes: two for wide characters of East Asia, none for marks on another character."""
    if text.isascii():
        return len(text)
    marks = ("Mn", "Me", "Cf")
    return sum(
        0 if unicodedata.category(c) in marks else 1 + (unicodedata.east_asian_width(c) in ("W", "F")) for c in text
    )


def cut(text: str, most: int, keep_end: bool = False) -> str:
    """Return `text` in at most `most` places, its end, or with `keep_end` its beginning, replaced by an ellipsis."""
    if places(text) <= most:
        return text
    kept, left = "", most - 1
    for character in reversed(text) if keep_end else text:
        left -= places(character)
        if left < 0:
            break
        kept = character + kept if keep_end else kept + character
    return "…" + kept if keep_end else kept + "…"


def align(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Return a line a row, its cells in columns two places apart, those of the columns in `right` at their right end."""
    widths = [max(map(places, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - places(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [gap + cell if i in right else cell + gap for i, (cell, gap) in enumerate(zip(row, gaps, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
