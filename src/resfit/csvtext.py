"""Rows as CSV text that a spreadsheet opens as text. No cell of it is a formula, none acts on a terminal.

By OWASP's advice on CSV injection (owasp.org/www-community/attacks/CSV_Injection): a cell that begins with = + - @ (or their
full-width forms), and is no plain number, gets an apostrophe before it, and a row with a semicolon is quoted whole, since some
spreadsheets part cells there. Control characters (tab, carriage return, newline), characters that turn text around and bytes
that are no UTF-8 are spelt out as `errors.visible` does. Every other cell stays as it is, byte for byte.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence

from resfit.errors import visible

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # spreadsheets pass over space before it
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return the rows as CSV, a line each, ended by a newline."""
    buffer = io.StringIO()
    plain = csv.writer(buffer, lineterminator="\n")
    quoted = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [_cell(str(value)) for value in row]
        (quoted if any(";" in cell for cell in cells) else plain).writerow(cells)
    return buffer.getvalue()


def _cell(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if _FORMULA.match(shown) and not _NUMBER.fullmatch(shown) else shown
