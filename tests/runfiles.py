"""What tests of runs share: all that must come out the same, and what stands for a kill."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest

from resfit.runs import Run
from resfit.training.checkpoint import checkpoints, read_tensors
from resfit.training.launch import train
from resfit.training.runlog import Progress

TIMES = ("train_seconds", "val_seconds")


def best_of(run: Run) -> Path:
    """The one file of chosen weights."""
    (path,) = run.checkpoints.glob("best-*.safetensors")
    return path


def essence(run: Run) -> dict[str, object]:
    """Everything that must come out the same, as bytes or plain values."""
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in run.metrics]
    summary = {k: v for k, v in run.summary.items() if "seconds" not in k and k != "images_per_second"}
    tensors, header = read_tensors(checkpoints(run.checkpoints)[-1])
    state = {name: value.numpy().tobytes() for name, value in tensors.items()}
    with np.load(run.folder / "predictions" / "val.npz") as arrays:
        probs = arrays["probs"].tobytes()
    files = [best_of(run).read_bytes(), run.recipe_file.read_bytes()]
    files += [(run.bundle / name).read_bytes() for name in ("model.safetensors", "config.json")]
    card = (run.bundle / "README.md").read_text().replace(run.info["commit"] or "installed from a wheel", "COMMIT")
    files.append(card.encode())  # the checkout may change while tests run
    return {"rows": rows, "summary": summary, "state": state, "header": header, "probs": probs, "files": files}


class Killed(BaseException):
    """Stands for SIGKILL where the test runs in one process: no handler of errors sees it."""


@contextlib.contextmanager
def killed_at(monkeypatch, when: int):
    """Kill the training within, which must come so far, once the step of this number has been made."""
    step = Progress.step

    def stop(self, state, steps_per_epoch, seconds):
        if state.step == when:
            raise Killed
        step(self, state, steps_per_epoch, seconds)

    with monkeypatch.context() as inside:
        inside.setattr(Progress, "step", stop)
        with pytest.raises(Killed):
            yield


def train_killed(monkeypatch, when: int, *arguments, **options) -> None:
    """Train until the step of this number has been made, and no further."""
    with killed_at(monkeypatch, when):
        train(*arguments, **options)


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "resfit", *map(str, words)]
