"""Names of classes that may be one class spelt twice: by case, Unicode form, plural, or a slip of the pen.

Slips are counted as one letter too many, too few, another, or two in the wrong order (Damerau 1964, "A technique for computer
detection and correction of spelling errors"): in short names only the last kind and a letter doubled, since `cat` and `car`
are two words; another letter only in long ones, since `castle` and `cattle` are; two slips in longer ones. The first letter is
taken to be right, and digits are: `class_1` and `class_2` are two classes.
"""

import itertools
import re
import unicodedata
from collections.abc import Sequence

ONE, OTHER, TWO = 5, 7, 8  # letters that the shorter name has at least, for one slip, for another letter, for two slips


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
    return re.sub(r"[\s_\-.'\u2019]", "", _folded(name))


def _is_slip(one: str, other: str) -> bool:
    if one == other:
        return bool(one)
    short, long = sorted((one, other), key=len)
    if not short or short[0] != long[0] or len(long) - len(short) > 2:
        return False
    if long in (f"{short}s", f"{short}es", f"{short[:-1]}ies" if short[-1] == "y" else f"{short}s"):
        return True
    slips = _distance(short, long)
    if slips != 1:
        return slips == 2 and len(short) >= TWO
    doubled = any(f"{short[: k + 1]}{short[k:]}" == long for k in range(len(short)))
    swapped = sorted(short) == sorted(long)
    if doubled or swapped:
        return len(short) >= 3
    return len(short) >= (OTHER if len(short) == len(long) else ONE)


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
