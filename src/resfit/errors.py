"""The errors a user can meet: one line each, `WHERE: what is wrong. What to do.`, and the exit code that goes with it."""

import difflib
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
