"""What every worker of a study must know, as a file in its folder: space, data, database, how much and until when. No torch."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from resfit import durable
from resfit.study.space import Space, load_space

STORAGE = "RESFIT_STORAGE"  # the variable by which workers learn the database's address, which may hold a password


@dataclass(frozen=True)
class Plan:
    """A study. `until` is in seconds since 1970, `beat` in seconds; `fingerprint` is that of the training images."""

    space: str  # file or shipped name
    settings: tuple[str, ...]
    data: str
    fingerprint: str
    storage: str
    trials: int
    device: str
    until: float | None
    beat: int
    parent: int  # the process that started the workers, which end with it

    def load_space(self) -> Space:
        """Read the space again."""
        return load_space(self.space, self.settings)


def write_plan(folder: Path, plan: Plan) -> None:
    """Write a plan, but for the database's address and the process."""
    value = {name: value for name, value in asdict(plan).items() if name not in ("storage", "parent")}
    durable.write_json(folder / "search.json", value)


def read_plan(folder: Path, storage: str, parent: int) -> Plan:
    """Read the plan in a folder."""
    value = json.loads((folder / "search.json").read_text())
    return Plan(**{**value, "settings": tuple(value["settings"])}, storage=storage, parent=parent)
