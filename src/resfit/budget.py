"""Budget: the limits a network must keep, sizes (`5M`) and times (`20m`) as people write them, and the verdict on a cost."""

import re
from dataclasses import dataclass

from resfit.errors import UsageError
from resfit.models.cost import Cost

SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Budget:
    """Upper limits, each inclusive; None is no limit. max_bytes counts float32 weights, max_ram activations at int8.

    With `enforce` false a network over them is trained all the same, and every verdict says that it is over.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic reads it where a recipe holds a Budget
    max_params: int | None = 5_000_000
    max_macs: int | None = None
    max_bytes: int | None = None
    max_ram: int | None = None
    enforce: bool = True


@dataclass(frozen=True)
class Verdict:
    """Whether a cost keeps a budget; `text` says it for people, `over` names the limits that are exceeded."""

    ok: bool
    text: str
    over: tuple[str, ...]


def parse_size(text: str | int) -> int:
    """Return a count written as `5M`, `500k`, `2.5M`, `1_000` or a plain integer; raises UsageError otherwise."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", str(text).strip().lower().replace("_", "").replace(",", ""))
    if not match:
        raise UsageError(f"{text!r} is not a size. Write it as 5M, 500k or 5000000.")
    value = float(match[1]) * SUFFIXES[match[2]]
    if value != int(value) or value < 1:
        raise UsageError(f"{text!r} is not a whole number of at least 1. Write it as 5M, 500k or 5000000.")
    return int(value)


def parse_duration(text: str) -> float:
    """Return the seconds written as `5ms`, `30s`, `20m` or `1.5h`; raises UsageError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(ms|s|m|h)", text.strip().lower())
    if not match or not float(match[1]):
        raise UsageError(f"{text!r} is not a time. Write it as 5ms, 30s, 20m or 2h.")
    return float(match[1]) * UNITS[match[2]]


def duration_text(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def check_budget(cost: Cost, budget: Budget) -> Verdict:
    """Compare a cost with a budget."""
    spent = {"max_params": cost.params, "max_macs": cost.macs, "max_bytes": cost.weight_bytes, "max_ram": cost.peak}
    limits = {name: getattr(budget, name) for name in spent}
    rows = [(name, spent[name], limit) for name, limit in limits.items() if limit is not None]
    over = tuple(name for name, value, limit in rows if value > limit)
    parts = [
        f"{value:,} / {limit:,} {name.removeprefix('max_')}"
        + (f" (over by {value - limit:,})" if value > limit else "")
        for name, value, limit in rows
    ]
    state = "over budget" if over else "within budget"
    return Verdict(ok=not over, text=f"{state}: {', '.join(parts)}" if parts else "no budget", over=over)
