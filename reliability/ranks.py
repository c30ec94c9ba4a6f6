"""Ranks of a job of torchrun, killed or stopped at random moments: the job ends in time, and goes on to the same bytes.

The agent is torchrun's own (`elastic_launch`), which forks its ranks here from a process that has imported torch.
"""

import contextlib
import importlib
import json
import os
import random
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import forks
import tiny
from figure import Figure, Round, spread

RECIPES = ("default", "own-average")
QUARTERS = 4
MOMENTS = (*(f"quarter {k + 1}" for k in range(QUARTERS)), "the end")
EACH = 9
HOLD = 0.7  # seconds at most into the end of a run, which rank 0 does alone and which takes no time with a tiny one
TIMEOUT = 3.0  # seconds after which a stopped rank is missed, RESFIT_TIMEOUT
ENDS = {
    "killed": 10.0,
    "stopped": TIMEOUT + 10.0,
    "killed, restarted": forks.BOUND,
}  # seconds a job may take from then on


def rounds(base: Path) -> list[Round]:
    """Return rounds for each way, rank and quarter of the time, and for what rank 0 does after training."""
    found = []
    for way in ENDS:
        for rank in (0, 1):
            for moment in MOMENTS:
                found += [Round(f"rank {rank} {way}, {moment}", str(k), (way, rank, moment)) for k in range(EACH)]
    return spread(found)


def check(base: Path, folder: Path, item: Round) -> str:
    """Hurt a rank, see the job end in time with a line that names it, let it go on, and compare."""
    way, rank, moment = item.what
    draw = random.Random(item.key)
    recipe = draw.choice(RECIPES)
    theirs, seconds = whole(base, recipe)
    out, log = folder / "run", folder / "log"
    hurt = job(base, recipe, out, folder, restarts=int(way == "killed, restarted"), hold=moment == "the end")
    pid = forks.start(hurt, log)
    if moment == "the end":
        _wait_for(folder / "ending")
        time.sleep(HOLD * draw.random())
    else:
        time.sleep(seconds * (MOMENTS.index(moment) + draw.random()) / QUARTERS)
    while way == "stopped" and not out.exists():  # until they have met: one that does not come at all has five minutes
        time.sleep(0.002)
    trained = (out / "metrics.jsonl").exists()
    _signal(folder, rank, signal.SIGSTOP if way == "stopped" else signal.SIGKILL)
    try:
        code = forks.wait(pid, ENDS[way])
    except forks.Hung:
        for each in (0, 1):
            _signal(folder, each, signal.SIGKILL)
        if not _finished(out):  # stopped after that, a rank keeps nobody waiting but torchrun
            return f"the job had not ended {ENDS[way]:g} s after its rank was {way}"
        code = 0
    # a rank that dies once the run has finished is torchrun's to report: nobody waits for it, and nothing is left to do
    over = _finished(out)
    said = [line for line in log.read_text().splitlines() if line.startswith("resfit: rank ")]
    if code and trained and not over and not any(line.startswith(f"resfit: rank {rank} of 2: ") for line in said):
        return f"no line names rank {rank}: {said}"
    if len(said) > 1 + (way == "killed, restarted"):
        return f"it is said {len(said)} times: {said}"
    if code and (code := forks.run(job(base, recipe, out, folder), log)):
        return f"exit code {code} when it goes on: {log.read_text().splitlines()[-1:]}"
    mine = tiny.essence(out)
    other = sorted(name for name in theirs.keys() | mine.keys() if mine.get(name) != theirs.get(name))
    return f"differs in {', '.join(other)}" if other else ""


@cache
def whole(base: Path, recipe: str) -> tuple[dict[str, str], float]:
    """Return what two ranks come to that nothing stopped, and their seconds."""
    folder = base / "ranks" / recipe
    folder.mkdir(parents=True)
    started = time.monotonic()
    if code := forks.run(job(base, recipe, folder / "run", folder), folder / "log"):
        raise RuntimeError(f"{recipe}: exit code {code}: {(folder / 'log').read_text()}")
    return tiny.essence(folder / "run"), time.monotonic() - started


def job(base: Path, recipe: str, out: Path, folder: Path, restarts: int = 0, hold: bool = False) -> Callable[[], int]:
    """Return a task that is torchrun's agent, with two ranks."""

    def task() -> int:
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch

        os.environ["RESFIT_TIMEOUT"] = str(TIMEOUT)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=2,
            run_id=folder.name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=restarts,
            monitor_interval=0.1,
            start_method="fork",
        )
        try:
            elastic_launch(config, be_rank)(str(base), recipe, str(out), str(folder), hold)
        except ChildFailedError:
            return 1
        return 0

    return task


def be_rank(base: str, recipe: str, out: str, folder: str, hold: bool) -> None:
    """Be one of the ranks, and note the process."""
    note = Path(folder, f"rank-{os.environ['RANK']}")
    note.with_suffix(".new").write_text(str(os.getpid()))
    note.with_suffix(".new").replace(note)
    if hold:
        _hold_the_end(Path(folder))
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    go = tiny.begin if restarted else tiny.go_on
    if code := go(Path(base), recipe, Path(out)):
        raise SystemExit(code)


def _wait_for(file: Path) -> None:
    deadline = time.monotonic() + forks.BOUND
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.002)


def _hold_the_end(folder: Path) -> None:
    """Have rank 0 take its time between the ranks' last exchange and the end of the run."""
    execution: Any = importlib.import_module("resfit.training.execution")
    finish = execution.finish

    def held(*args: Any) -> None:
        (folder / "ending").touch()
        time.sleep(HOLD)
        finish(*args)

    execution.finish = held


def _finished(out: Path) -> bool:
    file = out / "run.json"
    return file.exists() and json.loads(file.read_text())["status"] == "finished"


def _signal(folder: Path, rank: int, number: int) -> None:
    """Send a signal to a rank, once it is there and where it still is."""
    note = folder / f"rank-{rank}"
    _wait_for(note)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(note.read_text()), number)


FIGURE = Figure("ranks killed or stopped under torchrun's agent: hung, unnamed, or other bytes", rounds, check)
