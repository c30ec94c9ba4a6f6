"""The run of many processes: rank 0's, its shadow for the others, and the one that torchrun's restarts go on with."""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resfit.data.images import ImageSet
from resfit.errors import DataError, UsageError
from resfit.recipe import Recipe, recipe_to_toml
from resfit.runs import Run, own
from resfit.training.ranks import name_folder, present, shared
from resfit.training.runlog import say
from resfit.training.watch import birth


@dataclass(frozen=True)
class Shadow(Run):
    """Rank 0's run as the others know it, who may have no such folder: they write nothing."""

    facts: dict[str, Any] = field(default_factory=dict)
    resolved: Recipe | None = None

    @property
    def info(self) -> dict[str, Any]:
        """What run.json said, with this rank's changes."""
        return self.facts

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        assert self.resolved is not None
        return self.resolved

    def update(self, **changes: Any) -> None:
        """Change what this rank remembers."""
        self.facts.update(changes)


def shared_run(make: Callable[[], Run]) -> Run:
    """Return the run that rank 0 makes or opens; the others get its shadow."""
    ranks = present()
    if not ranks.many:
        return make()

    def described() -> tuple[Run, dict[str, Any], Recipe | None]:
        run = make()
        return (run, run.info, run.recipe) if run.info_file.exists() else (run, {}, None)

    run, info, recipe = shared(described)
    name_folder(run.folder)
    return run if ranks.first else Shadow(run.folder, info, recipe)


def hold(run: Run) -> contextlib.AbstractContextManager[None]:
    """Own the run's folder, as rank 0."""
    return own(run) if present().first else contextlib.nullcontext()


def note_size(run: Run) -> None:
    """Write down how many processes train the run; a line says where it was another number before."""
    size, before = present().world_size, run.info.get("world_size")
    if before not in (None, size):
        say(f"{run.folder}: began with {before} processes and goes on with {size}: the same numbers but for rounding")
    run.update(world_size=size)


def refuse_differences(recipe: Recipe, seed: int, sets: tuple[ImageSet | None, ...]) -> None:
    """Raise UsageError or DataError on a rank whose recipe, seed or images are not rank 0's."""
    ranks = present()
    if not ranks.many:
        return
    words = (recipe_to_toml(recipe), seed)
    data = [None if s is None else (s.fingerprint, s.order) for s in sets]
    their_words, their_data = shared(lambda: (words, data))
    if data != their_data:
        raise DataError(
            f"rank {ranks.rank} of {ranks.world_size}: sees other images than rank 0. Give every machine the same data."
        )
    if words != their_words:
        raise UsageError(
            f"rank {ranks.rank} of {ranks.world_size}: has another recipe or seed. Give every machine the same command."
        )


def is_restart() -> bool:
    """Return whether torchrun has started its processes anew after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def rendezvous() -> str | None:
    """Return what names this job of torchrun: the id of its rendezvous, or where that is "none" its own process; else None."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name == "none":  # with --master-port, or on several machines without --rdzv-id
        return f"none {socket.gethostname()} {os.getppid()} {birth(os.getppid())}"
    return name


def find_restarted(out: Path | None, recipe: Recipe, facts: Mapping[str, Any]) -> Run | None:
    """Return the newest run that this very job began: of the same rendezvous, recipe and `facts` of run.json; or None."""
    if not is_restart():
        return None
    wanted = {**facts, "rendezvous": rendezvous()}

    def newest() -> Run | None:
        found = [Run(out)] if out is not None else [Run(path) for path in Path("runs").glob(f"{recipe.name}-*")]
        found = [run for run in found if run.info_file.exists() and run.recipe_file.exists()]
        same = [run for run in found if {key: run.info.get(key) for key in wanted} == wanted]
        same = [run for run in same if run.recipe_file.read_text() == recipe_to_toml(recipe)]
        return max(same, key=lambda run: run.info_file.stat().st_mtime_ns, default=None)

    run = shared(newest)
    return None if run is None else shared_run(lambda: run)
