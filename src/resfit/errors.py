"""The errors a user can meet: one line each, `WHERE: what is wrong. What to do.`, and the exit code that goes with it."""

import difflib
import unicodedata
from collections.abc import Iterable


class ResfitError(Exception):
    """Something the user can act on; the command line prints it as one line and exits with `exit_code`."""

    exit_code = 1
    claimed = False  # by this process of many, which prints it for all


class UsageError(ResfitError):
    """A wrong option, name or recipe."""

    exit_code = 2


class GateError(ResfitError):
    """A stated bound (budget, parity, accuracy) was not met."""

    exit_code = 3


class DataError(ResfitError):
    """Images, labels or archives that cannot be used as they are."""

    exit_code = 4


class MissingExtraError(ResfitError):
    """An optional package is needed; the message names the extra."""

    exit_code = 5


class ResourceError(ResfitError):
    """Memory, disk or device does not allow it."""

    exit_code = 6


def nearest(word: str, choices: Iterable[str], most: int = 3) -> str:
    """Return " Did you mean 'a' or 'b'?" for the choices nearest to `word`, or an empty string where none is near."""
    known = sorted(set(choices))
    longer = [name for name in known if len(word) > 1 and name.startswith(word)]
    near = difflib.get_close_matches(word, known, n=most, cutoff=0.6)
    found = list(dict.fromkeys([*longer, *near]))[:most]
    return f" Did you mean {' or '.join(repr(f) for f in found)}?" if found else ""


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
