"""Everything of resfit that writes what must last, each as an act on a folder that can be killed or made to fail anywhere."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import forks
import tiny

RECIPE = "default"
Act = Callable[[Path, Path], int]
Read = Callable[[Path, Path], dict[str, str]]
SHORT = ("--set", "train.epochs=2")


@dataclass(frozen=True)
class Writer:
    """`before` fills the folder, `act` is what fails, `again` what a person does then, `read` what a reader then sees.

    Where `whole` is true a reader sees the old or the new value right after the failure too; else it may be at any point of
    the way, and only `again` ends it. Cache and ledger lie in the folder too.
    """

    act: Act
    again: Act
    read: Read
    before: Act = lambda base, folder: 0
    whole: bool = False
    files: str = ""  # a pattern of the calls that count: the others are another writer's


def _train(base: Path, folder: Path) -> int:
    return tiny.begin(base, RECIPE, folder / "run", *SHORT)


def _go_on(base: Path, folder: Path) -> int:
    return tiny.go_on(base, RECIPE, folder / "run", *SHORT)


def _refit(base: Path, folder: Path) -> int:
    return tiny.begin(base, RECIPE, folder / "run", "--refit", *SHORT)


def _go_on_refit(base: Path, folder: Path) -> int:
    return tiny.go_on(base, RECIPE, folder / "run", "--refit", *SHORT)


def _seeds(base: Path, folder: Path) -> int:
    return tiny.begin(base, RECIPE, folder / "run", "--seeds", 2, "--set", "train.epochs=1")


def _resume(base: Path, folder: Path) -> int:
    return tiny.command("resume", folder / "run")


def _interrupted(base: Path, folder: Path) -> int:
    """Leave a run as a power cut at its last epoch would: a cut row, an old temporary file, a checkpoint that is not whole."""
    from resfit.runs import Run
    from resfit.training.checkpoint import checkpoints

    code = _train(base, folder)
    run = Run(folder / "run")
    run.update(status="running")
    last = checkpoints(run.checkpoints)[-1]
    last.write_bytes(last.read_bytes()[:-100])
    (run.checkpoints / f".{last.name}.abcdefgh.tmp").write_bytes(b"cut")
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 3, "trai')
    return code


def _test(base: Path, folder: Path) -> int:
    return tiny.command("test", folder / "run")


def _prepare_data(base: Path, folder: Path) -> int:
    shutil.copyfile(base / "images.npz", folder / "images.npz")
    return 0


def _cache(base: Path, folder: Path) -> int:
    return tiny.command("data", "prepare", folder / "images.npz", "--image-size", tiny.SIDE)


def _essence(base: Path, folder: Path) -> dict[str, str]:
    return tiny.essence(folder / "run")


def _weights(base: Path, folder: Path) -> dict[str, str]:
    """Return what a refit ships."""
    run = folder / "run"
    (best,) = (run / "checkpoints").glob("best-*.safetensors")
    files = (best, run / "bundle" / "model.safetensors", run / "bundle" / "config.json", run / "recipe.toml")
    return {path.name: tiny.digest(path.read_bytes()) for path in files}


def _each_seed(base: Path, folder: Path) -> dict[str, str]:
    from resfit.runs import Run

    found = {"mean": str(Run(folder / "run").summary["val_accuracy"])}
    for seed in (0, 1):
        found |= {f"{seed} {name}": text for name, text in tiny.essence(folder / "run" / f"seed-{seed}").items()}
    return found


def _receipt(base: Path, folder: Path) -> dict[str, str]:
    import json

    receipt = json.loads((folder / "run" / "test.json").read_text())
    ledgers = [
        json.loads(line) for path in (folder / "state").rglob("*.jsonl") for line in path.read_text().splitlines()
    ]
    assert any(line["run"] == str((folder / "run").absolute()) for line in ledgers), "no opening is noted"
    shipped = json.loads((folder / "run" / "bundle" / "test.json").read_text())
    assert shipped["when"] == receipt["when"], "the bundle has another receipt"
    assert receipt["when"] in (folder / "run" / "bundle" / ".eval_results" / "test.yaml").read_text()
    assert f"opening {receipt['opening']} of" in (folder / "run" / "bundle" / "README.md").read_text()
    return {name: str(receipt[name]) for name in ("accuracy", "n", "fingerprint", "split")}


def _cached(base: Path, folder: Path) -> dict[str, str]:
    from resfit.data.images import PixelRule
    from resfit.data.sources import load_split

    found = load_split(folder / "images.npz", "train", PixelRule(tiny.SIDE))
    return {"pixels": tiny.digest(found.images[:].tobytes()), "fingerprint": found.fingerprint}


def _old_file(base: Path, folder: Path) -> int:
    (folder / "file").write_bytes(b"old" * 1000)
    return 0


def _write_over(base: Path, folder: Path) -> int:
    from resfit import durable

    return said(lambda: durable.write_bytes(folder / "file", b"new!" * 5000))


def _content(base: Path, folder: Path) -> dict[str, str]:
    return {"file": tiny.digest((folder / "file").read_bytes())}


def _run_json(base: Path, folder: Path) -> int:
    from resfit.runs import Run

    Run(folder).update(status="running", seed=1)
    return 0


def _update(base: Path, folder: Path) -> int:
    from resfit.runs import Run

    return said(lambda: Run(folder).update(status="finished", more="x" * 3000))


def _info(base: Path, folder: Path) -> dict[str, str]:
    from resfit.runs import Run

    return {name: str(value) for name, value in Run(folder).info.items()}


def _two_checkpoints(base: Path, folder: Path) -> int:
    return _save(folder, 1) or _save(folder, 2)


def _third_checkpoint(base: Path, folder: Path) -> int:
    return said(lambda: _save(folder, 3))


def _save(folder: Path, step: int) -> int:
    import torch

    from resfit.training.checkpoint import save_checkpoint

    generator = torch.Generator().manual_seed(step)
    save_checkpoint(folder, step, {"a": torch.rand(5000, generator=generator)}, {"step": step})
    return 0


def _newest(base: Path, folder: Path) -> dict[str, str]:
    from resfit.training.checkpoint import load_newest

    tensors, header, damaged = load_newest(folder)
    return {"a": tiny.digest(tensors["a"].numpy().tobytes()), "step": str(header["step"]), "damaged": str(damaged)}


def said(act: Callable[[], object]) -> int:
    """Run a function as the command line does: an error is one line and an exit code."""
    import sys

    from resfit.errors import ResfitError

    try:
        act()
    except ResfitError as error:
        print(f"resfit: {error}", file=sys.stderr)
        return error.exit_code
    return 0


WRITERS: Mapping[str, Writer] = {
    "train": Writer(_train, _go_on, _essence),
    "train --refit": Writer(_refit, _go_on_refit, _weights, files="best-"),
    "train --seeds": Writer(_seeds, _seeds, _each_seed, files=r"/run/\.?(seeds|summary)"),
    "resume": Writer(_resume, _resume, _essence, before=_interrupted),
    "test": Writer(_test, _test, _receipt, before=_train, files="test"),
    "data prepare": Writer(_cache, _cache, _cached, before=_prepare_data, files="/cache"),
    "write_bytes": Writer(_write_over, _write_over, _content, before=_old_file, whole=True),
    "Run.update": Writer(_update, _update, _info, before=_run_json, whole=True),
    "save_checkpoint": Writer(_third_checkpoint, _third_checkpoint, _newest, before=_two_checkpoints, whole=True),
}


def at(base: Path, work: Path, act: Act) -> Callable[[], int]:
    """Return an act on a work folder as a task for a child, with cache and ledger in the folder too."""

    def task() -> int:
        os.environ["RESFIT_CACHE"], os.environ["RESFIT_STATE"] = str(work / "cache"), str(work / "state")
        return act(base, work)

    return task


def prepared(base: Path, name: str, folder: Path) -> Path:
    """Return a work folder as it is before the act; made once, then copied."""
    made, work = template(base, name), folder / "work"
    if not made.exists():
        made.mkdir(parents=True)
        finish(forks.run(at(base, made, WRITERS[name].before), folder / "before.log"), folder / "before.log")
    shutil.copytree(made, work)
    return work


def template(base: Path, name: str) -> Path:
    """Return where a writer's work folder as it is before the act is kept."""
    return base / "writers" / name.replace(" ", "-")


@cache
def values(base: Path, name: str) -> tuple[dict[str, str] | None, dict[str, str]]:
    """Return what a reader sees before the act (None where it may see anything) and after it."""
    folder = base / "values" / name.replace(" ", "-")
    folder.mkdir(parents=True)
    writer, work = WRITERS[name], prepared(base, name, folder)
    old = writer.read(base, work) if writer.whole else None
    finish(forks.run(at(base, work, writer.act), folder / "act.log"), folder / "act.log")
    return old, writer.read(base, work)


def finish(code: int, log: Path) -> None:
    """Raise where what must work does not."""
    if code:
        raise RuntimeError(f"exit code {code}: {log.read_text()[-500:]}")
