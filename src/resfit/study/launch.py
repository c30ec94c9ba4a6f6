"""`search`: start workers on a study, show what they find, and write what came of it. Called again, it goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from shlex import quote
from typing import Any, Literal

from resfit import durable
from resfit.budget import Budget
from resfit.errors import DataError, GateError, MissingExtraError, ResfitError, ResourceError, UsageError
from resfit.escaping import visible
from resfit.machine import default_threads
from resfit.recipe import recipe_to_toml
from resfit.study.answer import live_lines, summarise
from resfit.study.plan import STORAGE, Plan, write_plan
from resfit.study.report import report_page
from resfit.study.space import Space, load_space
from resfit.study.trials import BEAT, Studies, guarded, open_study, shown
from resfit.training.launch import absolute, check_place, load_data
from resfit.training.runlog import Interrupt, Interrupted, say

LOOK = 1.0  # seconds between two looks at the database
RESTARTS = 1_000  # of workers that were killed, before the search gives up
FAULTS = 3  # of workers that ended for want of a resource: a database may be out of reach for a moment
ERRORS = {kind.exit_code: kind for kind in (UsageError, GateError, DataError, MissingExtraError, ResourceError)}


def search(
    space: str | Path,
    data: str | Path,
    *,
    trials: int = 20,
    out: str | Path | None = None,
    workers: int = 1,
    time_limit: float | None = None,
    storage: str | None = None,
    device: str = "auto",
    settings: Sequence[str] = (),
    engine: Literal["optuna", "ray"] = "optuna",
    beat: int = BEAT,
) -> dict[str, Any]:
    """Try recipes of a space on the validation split until `trials` have ended, then the best again with other seeds.

    `out` (default runs/search-NAME) keeps the runs, report.html and winner.toml; `storage` is the address of the study's
    database (default: an SQLite file there), which any number of machines may share. engine "ray": Ray Tune runs the trials,
    `workers` at once, on the cluster that RAY_ADDRESS names, or on this machine. time_limit and beat, the time between two
    signs of life, are in seconds. Returns what result.json holds. Called again with the same words it goes on. Raises
    UsageError, DataError, GateError, ResourceError, and Interrupted after a signal, with nothing lost.
    """
    if min(trials, workers) < 1:
        raise UsageError(f"search: {'--trials' if trials < 1 else '--workers'}: must be at least 1.")
    wanted = load_space(space, tuple(settings))
    folder = Path(out) if out is not None else Path("runs") / f"search-{wanted.name}"
    check_place(data, folder, device)
    _refuse_foreign(folder)
    durable.require_writable(folder)
    first = wanted.recipe(wanted.first()).model_copy(update={"budget": Budget(None)})
    same = {"space": wanted.text(), "data": load_data(first, data, refit=False)[0].fingerprint}
    folder.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{(folder / 'study.db').absolute()}"
    with guarded(url), ExitStack() as opened:
        names = {"trials": wanted.name, "rows": f"{wanted.name}/rows"}
        if wanted.search.mode == "one-at-a-time":
            del names["trials"]
        studies: Studies = {
            key: opened.enter_context(open_study(url, name, same, wanted.search, beat=beat))
            for key, name in names.items()
        }
        source = str(Path(space).absolute()) if str(space).endswith(".toml") else str(space)
        until = None if time_limit is None else time.time() + time_limit
        plan = Plan(
            space=source,
            settings=tuple(settings),
            data=absolute(data),
            fingerprint=same["data"],
            storage=url,
            trials=trials,
            device=device,
            until=until,
            beat=beat,
            parent=os.getpid(),
        )
        write_plan(folder, plan)
        say(f"{wanted.name}: {workers} worker{'s' * (workers != 1)}, database {shown(url)}; folder {folder}")
        try:
            if engine == "ray":
                from resfit.study.cluster import drive

                drive(folder.absolute(), plan, workers)
            else:
                _drive(folder, plan, wanted, workers, studies)
        except Interrupted as stop:
            say(f"{stop}; the same command goes on")
            raise
        finally:
            result = summarise(wanted, studies, trials)
            _write(folder, wanted, result)
    return result


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder with something in it that is no search; one that was killed at its very start has a database at most."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    ours = {"search.json", "study.db"}.intersection(names) or all(name.endswith(".tmp") for name in names)
    if not ours or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"{folder}: holds something already, and no search. Choose another --out.")


def _drive(folder: Path, plan: Plan, space: Space, workers: int, studies: Studies) -> None:
    """Keep workers running until they have done their work. Raises what ended them."""
    running = {number: _start(folder, number, workers, plan) for number in range(workers)}
    board, restarts, faults = Board(), 0, 0
    with Interrupt().watching() as interrupt:
        try:
            while running:
                time.sleep(LOOK)
                interrupt.leave()
                for number, process in list(running.items()):
                    code = process.poll()
                    if code is None:
                        continue
                    del running[number]
                    if code < 0 and restarts < RESTARTS:
                        restarts += 1
                        say(f"worker {number} was ended by {signal.Signals(-code).name}: another takes its place")
                        running[number] = _start(folder, number, workers, plan)
                    elif code == ResourceError.exit_code and faults < FAULTS:
                        faults += 1
                        say(f"{_fault(folder, number, code)} Another takes its place.")
                        running[number] = _start(folder, number, workers, plan)
                    elif code not in (0, 143):
                        raise _fault(folder, number, code)
                board.show(live_lines(space, studies, plan.trials))
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait()


def _start(folder: Path, number: int, workers: int, plan: Plan) -> "subprocess.Popen[bytes]":
    threads = max(1, default_threads() // workers)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), STORAGE: plan.storage}
    words = [sys.executable, "-m", "resfit.study.worker", str(folder), str(number), str(plan.parent)]
    with _log(folder, number).open("ab") as log:
        return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _log(folder: Path, number: int) -> Path:
    return folder / f"worker-{number}.log"


def _fault(folder: Path, number: int, code: int) -> ResfitError:
    """Return the error that a worker ended with: its last line, and the exit code that goes with it."""
    log = _log(folder, number)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else f"ended with exit code {code}"
    kind = ERRORS.get(code, ResfitError)
    return kind(f"{last.removeprefix('resfit: ')} (worker {number}; its log is {log})")


class Board:
    """Lines on stderr that are drawn anew on a terminal; elsewhere only those not said before."""

    def __init__(self) -> None:
        self.live, self.height, self.said = sys.stderr.isatty(), 0, set[str]()

    def show(self, lines: tuple[list[str], list[str]]) -> None:
        """Show (table, lines of ended trials): the table on a terminal, each ended trial once elsewhere."""
        table, ended = lines
        if self.live:
            up = f"\x1b[{self.height}F\x1b[J" if self.height else ""
            sys.stderr.write(up + "".join(f"{visible(line)}\n" for line in table))
            sys.stderr.flush()
            self.height = len(table)
            return
        for line in ended:
            if line not in self.said:
                self.said.add(line)
                say(line)


def _write(folder: Path, space: Space, result: dict[str, Any]) -> None:
    """Write result, report and, where there is one, the winner's recipe."""
    durable.write_json(folder / "result.json", result)
    durable.write_text(folder / "report.html", report_page(result))
    if result["winner"] is not None:
        won = result["winner"]
        recipe = space.recipe(won["point"], f"{space.name}-winner")
        head = f"# The winner of `resfit search {quote(space.where)}`: {won['label']}, val {won['text']}.\n"
        durable.write_text(folder / "winner.toml", head + recipe_to_toml(recipe))
