"""Text in which no name acts: on a terminal, in a spreadsheet, on another reader of JSON. No torch.

CSV is by OWASP's advice on CSV injection (owasp.org/www-community/attacks/CSV_Injection): a cell that begins with = + - @ (or
their full-width forms), and is no plain number, gets an apostrophe before it, and a row with a semicolon is quoted whole, since
some spreadsheets part cells there. Tab, carriage return and newline are spelt out, as all that `visible` spells out. Every
other cell stays as it is, byte for byte.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # spreadsheets pass over space before it
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def visible(text: str) -> str:
    """Return `text` as it may be shown to people: what acts on a terminal, or turns other text around, is spelt out.

    Control characters, newlines among them, and the invisible ones that format (those that embed, isolate or override a
    direction: Boucher & Anderson 2021, "Trojan Source", arXiv 2111.00169) become `\\x1b` or `\\u202e`, bytes of a path that
    are no UTF-8 `\\xff`. All other text stays as it is: the joiners of scripts and emoji, and every kind of space too.
    """
    return text if text.isascii() and text.isprintable() else "".join(map(_spelt, text))


def _spelt(character: str) -> str:
    code = ord(character)
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp") or character in "\u200c\u200d":
        return character
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0  # a byte that is no UTF-8, as Python holds it
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 2**16 else f"\\U{code:08x}"


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


def json_text(value: Any, indent: int | None = 2) -> str:
    """Return ASCII JSON; a byte of a name that is no UTF-8, which other readers refuse, is spelt out as `visible` does."""
    return json.dumps(_without_surrogates(value), indent=indent)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", lambda found: visible(found[0]), value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(inner) for key, inner in value.items()}
    return [_without_surrogates(inner) for inner in value] if isinstance(value, (list, tuple)) else value
