"""Names of classes that may be one class spelt twice: by case, Unicode form, plural, or a slip of the pen.

Slips are counted as one letter too many, too few, another, or two in the wrong order (Damerau 1964, "A technique for computer
detection and correction of spelling errors"): in short names only the last kind and a letter doubled, since `cat` and `car`
are two words; in longer ones any; two slips in long ones. The first letter is taken to be right, and digits are:
`class_1` and `class_2` are two classes.
"""

import itertools
import re
import unicodedata
from collections.abc import Sequence

LETTERS = {1: 5, 2: 8}  # that the shorter name has at least, by slips


def alike(names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return the pairs (i, j) of names that look like one, i < j, with what they differ by: case, Unicode form, spelling."""
    plain = [_plain(name) for name in names]
    digits = [re.sub(r"\D", "", name) for name in plain]
    found = []
    for i, j in itertools.combinations(range(len(names)), 2):
        if names[i].casefold() == names[j].casefold():
            found.append((i, j, "case"))
        elif _folded(names[i]) == _folded(names[j]):
            found.append((i, j, "Unicode form"))
        elif digits[i] == digits[j] and _is_slip(plain[i], plain[j]):
            found.append((i, j, "spelling"))
    return found


def _folded(name: str) -> str:
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", visible).casefold())


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-.]", "", _folded(name))


def _is_slip(one: str, other: str) -> bool:
    if one == other:
        return bool(one)
    short, long = sorted((one, other), key=len)
    if not short or short[0] != long[0] or len(long) - len(short) > 2:
        return False
    if long in (f"{short}s", f"{short}es", f"{short[:-1]}ies" if short[-1] == "y" else f"{short}s"):
        return True
    slips = _distance(short, long)
    if any(slips <= most and len(short) >= letters for most, letters in LETTERS.items()):
        return True
    doubled = any(f"{short[: k + 1]}{short[k:]}" == long for k in range(len(short)))
    swapped = len(short) == len(long) and sorted(short) == sorted(long)
    return len(short) >= 3 and slips == 1 and (doubled or swapped)


def _distance(one: str, other: str) -> int:
    """Return the slips between two words: optimal string alignment."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            best = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                best = min(best, rows[-2][j - 2] + 1)
            row.append(best)
        rows.append(row)
    return rows[-1][-1]
