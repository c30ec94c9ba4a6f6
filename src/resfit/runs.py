"""The run folder: where each file of a run lies, and how a run is created and found again. No torch."""

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from resfit import durable
from resfit.errors import ResourceError, UsageError
from resfit.recipe import Recipe
from resfit.recipefile import load_recipe


@dataclass(frozen=True)
class Run:
    """One execution of a recipe with one seed, by its folder."""

    folder: Path

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe, TOML."""
        return self.folder / "recipe.toml"

    @property
    def info_file(self) -> Path:
        """Status, versions, device, seed, fingerprints, JSON."""
        return self.folder / "run.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object an epoch."""
        return self.folder / "metrics.jsonl"

    @property
    def summary_file(self) -> Path:
        """What came out, JSON; written at the end."""
        return self.folder / "summary.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def best_file(self, epoch: int) -> Path:
        """The weights chosen after an epoch: the best on validation, or the last of a refit."""
        return self.checkpoints / f"best-{epoch:06d}.safetensors"

    def drop_other_best(self, epoch: int) -> None:
        """Remove the chosen weights of every other epoch."""
        for path in self.checkpoints.glob("best-*.safetensors"):
            if path != self.best_file(epoch):
                durable.remove(path)

    @property
    def bundle(self) -> Path:
        """The folder to ship."""
        return self.folder / "bundle"

    @property
    def receipt_file(self) -> Path:
        """The receipt of the test split's opening, JSON."""
        return self.folder / "test.json"

    @property
    def predictions_file(self) -> Path:
        """What the chosen weights say of the validation split: probs, labels, keys; of a refit run there is none."""
        return self.folder / "predictions" / "val.npz"

    @property
    def evaluation_file(self) -> Path:
        """What `evaluate --full` found on the validation split, JSON."""
        return self.folder / "evaluation.json"

    @property
    def info(self) -> dict[str, Any]:
        """The content of run.json."""
        return _read_json(self.info_file)

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json; raises UsageError when the run has not finished."""
        if not self.summary_file.exists():
            raise UsageError(f"{self.folder}: has not finished. Run `resfit resume {quote(str(self.folder))}` first.")
        return _read_json(self.summary_file)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(self.recipe_file)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a last line cut short by a crash is left out."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def update(self, **changes: Any) -> None:
        """Write run.json anew with these keys changed."""
        before = self.info if self.info_file.exists() else {}
        durable.write_json(self.info_file, before | changes)


def new_run(name: str, out: Path | None) -> Run:
    """Make an empty run folder: `out`, or `runs/<name>-<n>` with the first free n.

    Raises UsageError when `out` holds something already, ResourceError when it cannot be made.
    """
    if out is not None:
        refuse_taken(out)
        return Run(_make(out, exist_ok=True))
    parent = Path("runs")
    taken = [int(m[1]) for p in parent.glob(f"{name}-*") if (m := re.fullmatch(rf"{re.escape(name)}-(\d+)", p.name))]
    number = max(taken, default=0) + 1
    while True:
        try:
            return Run(_make(parent / f"{name}-{number}", exist_ok=False))
        except FileExistsError:  # another process took the number first
            number += 1


def refuse_taken(out: Path) -> None:
    """Raise UsageError when `out` holds something already."""
    if not out.exists():
        return
    # a start that was killed before run.json was there has left a recipe at most
    if not out.is_dir() or any(p.name not in ("recipe.toml", ".lock") and p.suffix != ".tmp" for p in out.iterdir()):
        what = f"Continue it with `resfit resume {quote(str(out))}`" if (out / "run.json").exists() else "Empty it"
        raise UsageError(f"{out}: holds something already. {what}, or choose another --out.")


@contextlib.contextmanager
def own(run: Run) -> Iterator[None]:
    """Hold the run folder for this process; raises ResourceError while another has it. A dead owner's hold is free at once."""
    try:
        import fcntl  # not on Windows, where two owners are not noticed
    except ImportError:
        yield
        return
    try:
        file = (run.folder / ".lock").open("w")
    except OSError as error:
        raise ResourceError(f"{run.folder}: cannot be written: {error.strerror}. Make it writable.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResourceError(f"{run.folder}: another process is training it. Wait for it, or stop it.") from error
        except OSError as error:
            raise ResourceError(f"{run.folder}: cannot be locked: {error.strerror}. Choose another folder.") from error
        yield


def open_run(path: str | Path) -> Run:
    """Return the run in a folder; raises UsageError when there is none."""
    run = Run(Path(path))
    if not run.info_file.is_file():
        seeds = seed_runs(path)
        hint = f"Name one of its seeds, e.g. {seeds[0].folder}." if seeds else "Name a run folder, e.g. runs/NAME-1."
        raise UsageError(f"{path}: is not a run folder (it has no run.json). {hint}")
    return run


def seed_runs(path: str | Path) -> list[Run]:
    """Return the runs in the parent folder that `train --seeds` makes, by seed; none where `path` is anything else."""
    if (Path(path) / "run.json").is_file():
        return []
    folders = [item.parent for item in Path(path).glob("seed-*/run.json")]
    return [Run(folder) for folder in sorted(folders, key=lambda folder: (len(folder.name), folder.name))]


def _make(folder: Path, exist_ok: bool) -> Path:
    try:
        durable.make_folder(folder, exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise ResourceError(f"{folder}: cannot be made: {error.strerror}. Choose another --out.") from error
    return folder


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}). Is the run folder whole?") from error
    return value
