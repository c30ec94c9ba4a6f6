"""A figure: its rounds, each of a class, and the check of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Round:
    """One round: its class, its label within the class, and what the check needs to know."""

    kind: str
    label: str
    what: tuple[Any, ...] = ()

    @property
    def key(self) -> str:
        """The name under which it is counted once."""
        return f"{self.kind} #{self.label}"


@dataclass(frozen=True)
class Figure:
    """A figure of results/reliability.json.

    `rounds(base)` lists all of the full form; `check(base, folder, round)` runs one in an empty folder and returns what
    went wrong, or an empty string.
    """

    name: str
    rounds: Callable[[Path], list[Round]]
    check: Callable[[Path, Path, Round], str]


def spread(rounds: Sequence[Round]) -> list[Round]:
    """Return the rounds so that the first ones are one of each class, and any few of those lie far apart."""
    firsts: dict[str, Round] = {}
    for item in rounds:
        firsts.setdefault(item.kind, item)
    first = list(firsts.values())
    chosen = {item.key for item in first}
    return [*_apart(first), *_apart([item for item in rounds if item.key not in chosen])]


def _apart(rounds: list[Round]) -> list[Round]:
    """Order by the fractional parts of multiples of the golden ratio: any first few are spread evenly."""
    return [rounds[index] for index in sorted(range(len(rounds)), key=lambda index: index * 0.6180339887 % 1)]
