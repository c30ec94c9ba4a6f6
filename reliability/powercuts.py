"""Power cuts: recorded calls of runs, and every state that a disk may be in after any of them; always a valid checkpoint."""

import contextlib
import random
import re
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import disk
import forks
import tiny
import watch
import writers
from figure import Figure, Round, spread

FATES = (*disk.FATES, "first ones", "reordered")  # of what was not synced
CHANCE, DRAWS = ("cut", "first ones", "reordered"), 2  # what is drawn, and how often
RESUMED = 20  # each so-many-th state is resumed to its end too
HEX = ("-xx", "-s", "100000000")


@dataclass(frozen=True)
class Recording:
    """The calls of a run on an empty folder or on what `before` left, the places where one may cut, and what was promised.

    cuts (index of the call after which it is cut, what that call was); promised[index] is the newest step whose saving had
    returned, -1 before the first.
    """

    name: str
    top: Path
    before: Path
    calls: list[watch.Call]
    cuts: list[tuple[int, str]]
    promised: list[int]
    final: Path
    more: tuple[str, ...]


@cache
def recordings(base: Path) -> tuple[Recording, ...]:
    """Record a run that saves each step, one of another optimizer, with resizing, and a continued one."""
    return (
        _record(base, "default", "steps", writers.SHORT),
        _record(base, "speed-cpu", "epochs", ()),
        _record(base, "default", "resumed", writers.SHORT),
    )


def _record(base: Path, recipe: str, how: str, more: tuple[str, ...]) -> Recording:
    folder = base / "recorded" / how
    top, before, log = folder / "top", folder / "before", folder / "log"
    top.mkdir(parents=True)
    if how == "resumed":
        shutil.copytree(writers.prepared(base, "resume", folder) / "run", top / "run")
    shutil.copytree(top, before)

    def task() -> int:
        if how == "steps":
            tiny.save_each_step()
        return tiny.go_on(base, recipe, top / "run", *more)

    code, calls = watch.run(task, log, HEX)
    writers.finish(code, log)
    model, cuts = disk.Disk(before), []
    model.top = top
    for index, call in enumerate(calls):
        if model.do(call):
            cuts.append((index, watch.kind(_readable(call), top)))
    _same_as_real(model.root, top)
    return Recording(recipe, top, before, calls, cuts, _promises(calls, top, before), top / "run", more)


def _readable(call: watch.Call) -> watch.Call:
    return call._replace(arguments=disk.HEX.sub(lambda found: chr(int(found[1], 16)), call.arguments))


def _same_as_real(inode: disk.Inode, place: Path) -> None:
    """Raise where the replayed calls do not give what the real disk holds: then the model is wrong."""
    assert sorted(inode.entries) == sorted(path.name for path in place.iterdir()), place
    for name, item in inode.entries.items():
        if item.folder:
            _same_as_real(item, place / name)
        else:
            assert item.live == (place / name).read_bytes(), place / name


def _promises(calls: list[watch.Call], top: Path, before: Path) -> list[int]:
    """Return for each call the newest step whose checkpoint must outlast a cut after it.

    A saving has returned once the process does something else than sync and close what it saved.
    """
    from resfit.training.checkpoint import checkpoints, load_newest

    folder = top / "run" / "checkpoints"
    old = before / "run" / "checkpoints"
    promised = load_newest(old)[1]["step"] if checkpoints(old) else -1
    found, waiting = [], None
    for call in map(_readable, calls):
        within = call.name in ("openat", "fsync", "close") and f"{folder}" in call.arguments
        if waiting is not None and not (within and "safetensors" not in call.arguments):
            promised, waiting = max(promised, waiting), None
        names = re.findall(r'step-(\d+)\.safetensors"', call.arguments)
        if call.name == "rename" and call.returned == "0" and names:
            waiting = int(names[-1])
        found.append(promised)
    return found


def rounds(base: Path) -> list[Round]:
    """Return a round for each cut of each recording and each fate, class: what was done last, and the fate."""
    return spread(
        [
            Round(f"{kind}, the unsynced {fate}", f"{number} {index} {draw}", (number, index, fate))
            for number, recording in enumerate(recordings(base))
            for index, kind in recording.cuts
            for fate in FATES
            for draw in range(DRAWS if fate in CHANCE else 1)
        ]
    )


def check(base: Path, folder: Path, item: Round) -> str:
    """Make the state; the newest checkpoint is one really written and not older than promised, with its rows and its best."""
    number, index, fate = item.what
    recording = recordings(base)[number]
    draw = random.Random(item.key)
    model = disk.Disk(recording.before)
    model.top = recording.top
    for call in recording.calls[: index + 1]:
        model.do(call)
    disk.write_state(model.root, folder, fate, draw)
    out = folder / "run"
    if problem := _unsound(recording, out, recording.promised[index]):
        return problem
    if draw.randrange(RESUMED):
        return ""
    log = folder / "log"
    if code := forks.run(lambda: tiny.go_on(base, recording.name, out, *recording.more), log):
        return f"resumed: exit code {code}: {log.read_text().strip().splitlines()[-1:]}"
    return tiny.lost(base, recording.name, out, *recording.more)


def _unsound(recording: Recording, out: Path, promised: int) -> str:
    """Return what is wrong with a state: nothing that can be resumed from, something older than promised, or other bytes."""
    from resfit.errors import ResourceError
    from resfit.runs import Run
    from resfit.training.checkpoint import load_newest, read_tensors

    run = Run(out)
    try:
        tensors, header, damaged = load_newest(run.checkpoints)
    except ResourceError as error:
        return f"step {promised} was saved: {error}" if promised >= 0 else ""
    if header["step"] < promised:
        return f"step {promised} was saved, and {header['step']} is the newest"
    if (header["step"], _digest(tensors)) not in written(recording):
        return f"step {header['step']}: accepted, and was never written so"
    if not run.info_file.exists() or not run.recipe_file.exists():
        return "a checkpoint without run.json or recipe"
    rows = [row["epoch"] for row in run.metrics[: header["epoch"]]]
    if rows != list(range(header["epoch"])):
        return f"step {header['step']}: rows of epochs {rows} for {header['epoch']} epochs"
    # from an older one the way to a better epoch is gone again, to the same bytes; so it was where a continued run began
    old = Run(recording.before / "run").checkpoints / f"step-{header['step']:09d}.safetensors"
    if header["best"] and not damaged and not old.exists():
        read_tensors(run.best_file(header["best"]["epoch"]))
    return ""


def written(recording: Recording) -> set[tuple[int, str]]:
    """Return step and digest of the tensors of every checkpoint that was ever whole."""
    if recording.top not in _WRITTEN:
        model = disk.Disk(recording.before)
        model.top = recording.top
        names = _checkpoint_files(model)
        for call in recording.calls:
            model.do(call)
            if call.name == "rename":
                names |= _checkpoint_files(model)
        _WRITTEN[recording.top] = _read_all(list(names.values()), recording.top.with_name("one.safetensors"))
    return _WRITTEN[recording.top]


_WRITTEN: dict[Path, set[tuple[int, str]]] = {}


def _read_all(files: list[bytes], place: Path) -> set[tuple[int, str]]:
    from resfit.training.checkpoint import read_tensors

    found = set()
    for data in files:
        place.write_bytes(data)
        with contextlib.suppress(ValueError):  # the damaged one that a continued run begins with
            tensors, header = read_tensors(place)
            found.add((header["step"], _digest(tensors)))
    return found


def _checkpoint_files(model: disk.Disk) -> dict[str, bytes]:
    inode = model.find(model.top / "run" / "checkpoints")
    entries = inode.entries if inode is not None else {}
    return {tiny.digest(i.live): i.live for name, i in entries.items() if name.startswith("step-")}


def _digest(tensors: dict[str, Any]) -> str:
    return tiny.digest(b"".join(name.encode() + tensors[name].numpy().tobytes() for name in sorted(tensors)))


FIGURE = Figure(
    "simulated power cuts: no valid checkpoint, an older one than was saved, or a corrupt one", rounds, check
)
