"""Thirty planted faults, each of which the checks must catch: a test of the tests.

A fault is a text of the source and what stands in its place; where the text is not there exactly once the fault is not
caught, so that none rots unseen. Each is planted in a copy of src/, in a process that has imported torch and no resfit; the
rounds that should catch it must pass on an unchanged copy.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import forks
from figure import Figure, Round

SOURCE = Path(__file__).resolve().parents[1] / "src"
BOUND = 15.0  # seconds: a planted hang is told soon


@dataclass(frozen=True)
class Probe:
    """The first `count` rounds of a figure whose key has a pattern, or runs of a recipe killed before some renames."""

    figure: str
    pattern: str
    count: int = 12
    writers: tuple[str, ...] = ()  # record these alone


@dataclass(frozen=True)
class Fault:
    """What is changed where, and the probe that must notice."""

    file: str
    old: str
    new: str
    probe: Probe


# of a run that is continued: its folders' entries are synced from the start
CUT_BYTES = Probe("powercuts", r"(cut|zeroed|missing) #2 ", 100)
CUT_BEST = Probe("powercuts", r"^unlink .*/best-.* kept #[01] ", 20)
CUT_ENTRIES = Probe("powercuts", r"(missing|first ones|reordered) #2 ", 100)
DAMAGED = Probe("corruptions", r"^checkpoint of (default|synthetic): .*#0", 40)
HEADER = Probe("corruptions", r"^checkpoint of synthetic: a digit of the header #\d$", 10)
SMALL = ("write_bytes", "Run.update", "save_checkpoint")
KILLED_WRITER = Probe("calls", "", 40, SMALL)
SHORT = Probe("errors", ": short #", 10, SMALL)
FAILED_WRITER = Probe("errors", r"^(write|fsync|rename) .*: ENOSPC #", 10, SMALL)
KILLED_TEST = Probe("calls", r"/run/\.?test\.json", 30, ("test",))
KILLED_END = Probe("calls", r"/(summary|bundle|predictions|\.summary)", 10, ("train",))
RESUMED = Probe("resumed", "own-average")
STOPPED = Probe("resumed", "own-stopping")
TORN = Probe("calls", r"openat /run/.run.json..tmp #resume 1$", 1, ("resume",))
OTHER = Probe("corruptions", "another run's checkpoint", 4)
OWNERS = Probe("owners", r"^resume, interrupted, [5678] processes #[01]$", 6)
HOLDER = Probe("owners", r"^beside a holder, [234] processes #0$", 3)

DURABLE, CHECKPOINT, STATE = "durable.py", "training/checkpoint.py", "training/state.py"
EXECUTION, LOOP, LOG = "training/execution.py", "training/loop.py", "training/runlog.py"
SAVER = "training/saver.py"
SAVE = '    write_tensors(checkpoint_file(folder, step), tensors, header | {"step": step})\n'
FLUSH = "            self.flush()\n"
STEP = "            save_checkpoint(self.run.checkpoints, state.step, tensors, header_of(state) | self.same, start)\n"
FAULTS = {
    "a file is not synced": Fault(DURABLE, "            os.fsync(file.fileno())\n", "", CUT_BYTES),
    "a file is synced before its buffer is written": Fault(DURABLE, "            file.flush()\n", "", CUT_BYTES),
    "a folder is not synced": Fault(DURABLE, "        sync_folder(path.parent)\n", "", CUT_ENTRIES),
    "nothing is read back": Fault(DURABLE, "if file.read() != data:", "if False:", SHORT),
    "a file is written in place": Fault(
        DURABLE, "os.replace(temporary, path)", "path.write_bytes(data), os.unlink(temporary)", KILLED_WRITER
    ),
    "a temporary file is left after an error": Fault(
        DURABLE, "                os.unlink(temporary)", "                pass", FAILED_WRITER
    ),
    "an error of the disk is swallowed": Fault(
        DURABLE,
        '        raise ResourceError(f"{path}: cannot be written',
        '        return\n        raise ResourceError(f"{path}: cannot be written',
        FAILED_WRITER,
    ),
    "the old file is removed first": Fault(
        DURABLE, "        os.replace(", "        path.unlink(missing_ok=True)\n        os.replace(", KILLED_WRITER
    ),
    "the checksum is not compared": Fault(CHECKPOINT, "if checksum != _checksum(tensors, text):", "if False:", DAMAGED),
    "the checksum leaves out the header": Fault(CHECKPOINT, "blake2b(header.encode(),", 'blake2b(b"",', HEADER),
    "the checksum leaves out most bytes": Fault(CHECKPOINT, ".numpy().data)", ".numpy()[:64].data)", DAMAGED),
    "one checkpoint is kept": Fault(CHECKPOINT, "KEEP = 2", "KEEP = 1", DAMAGED),
    "only the newest checkpoint is looked at": Fault(
        CHECKPOINT, "in reversed(checkpoints(folder)) if", "in checkpoints(folder)[-1:] if", DAMAGED
    ),
    "the oldest checkpoint is taken": Fault(
        CHECKPOINT, "in reversed(checkpoints(folder)) if", "in checkpoints(folder) if", DAMAGED
    ),
    "a damaged checkpoint is passed over in silence": Fault(
        CHECKPOINT, "            damaged.append(", "            str(", DAMAGED
    ),
    "old checkpoints are removed before the new one is written": Fault(
        CHECKPOINT, SAVE, f"    for old in checkpoints(folder):\n        old.unlink()\n{SAVE}", KILLED_WRITER
    ),
    "the optimizer's state is dropped": Fault(
        STATE, '    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": slots})\n', "", RESUMED
    ),
    "the average is dropped": Fault(STATE, 'value.copy_(part["average"][name])', "pass", RESUMED),
    "the epoch's sums are dropped": Fault(STATE, '    state.sums = tensors["sums"].to(device)\n', "", RESUMED),
    "steps and rates are off by one after resume": Fault(
        STATE, 'state.seconds = header["step"],', 'state.seconds = header["step"] + 1,', RESUMED
    ),
    "the plateau's rate is dropped": Fault(STATE, 'Plateau(**header["plateau"])', "Plateau()", RESUMED),
    "the best epoch is forgotten": Fault(STATE, 'Best(**header["best"])', "Best()", STOPPED),
    "the seed is forgotten": Fault(
        EXECUTION, 'steps) = run.info["seed"],', 'steps) = run.info["seed"] * (state.step == 0),', RESUMED
    ),
    "another run's checkpoint is taken": Fault(CHECKPOINT, "_refuse_other(path, header, same or {})", "pass", OTHER),
    "rows of lost epochs are kept": Fault(EXECUTION, "        keep_rows(run.metrics_file, state.epoch)\n", "", RESUMED),
    "temporary files of a kill are kept": Fault(EXECUTION, "durable.remove(left)", "pass", RESUMED),
    "the order of images begins anew": Fault(
        LOOP, "done = state.step - epoch * steps_per_epoch", "done = 0 * epoch", RESUMED
    ),
    "the best weights are removed before a checkpoint names the new ones": Fault(
        SAVER, FLUSH, f"            self.run.drop_other_best(state.best.epoch)\n{FLUSH}", CUT_BEST
    ),
    "a checkpoint comes before its rows": Fault(SAVER, f"{FLUSH}{STEP}", f"{STEP}{FLUSH}", RESUMED),
    "a cut row is read": Fault(LOG, 'path.read_text().split("\\n")[:-1] if', "path.read_text().splitlines() if", TORN),
    "run.json is written in place": Fault(
        "runs.py",
        "durable.write_json(self.info_file, before | changes)",
        "self.info_file.write_text(json.dumps(before | changes))",
        KILLED_WRITER,
    ),
    "the receipt is written in place": Fault(
        "evaluation/holdout.py",
        "durable.write_json(run.receipt_file, receipt)",
        "run.receipt_file.write_text(json.dumps(receipt))",
        KILLED_TEST,
    ),
    "a run is called finished before it is": Fault(
        "training/outcome.py",
        "    val = None\n",
        '    val = None\n    run.update(status="finished")\n',
        KILLED_END,
    ),
    "the lock is ignored": Fault("runs.py", "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)", "pass", OWNERS),
    "the lock is shared": Fault("runs.py", "fcntl.LOCK_EX", "fcntl.LOCK_SH", OWNERS),
    "a second process waits for the lock": Fault("runs.py", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_EX", HOLDER),
}


def rounds(base: Path) -> list[Round]:
    """Return a round a fault; which ones come first goes by the commit, so that CI's few are others each time."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False, cwd=SOURCE)
    first = int(done.stdout.strip() or "0", 16) % len(FAULTS)
    names = [*FAULTS][first:] + [*FAULTS][:first]
    return [Round(name, "planted", (name,)) for name in names]


def check(base: Path, folder: Path, item: Round) -> str:
    """Plant a fault and return what is wrong where it is not caught."""
    fault = FAULTS[item.what[0]]
    if problem := unplanted(fault.probe):
        return f"the probe fails without the fault: {problem}"
    shutil.copytree(SOURCE, folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder / "src" / "resfit" / fault.file
    text = file.read_text()
    if text.count(fault.old) != 1:
        return f"{fault.file} has its text {text.count(fault.old)} times"
    file.write_text(text.replace(fault.old, fault.new))
    return "" if ask(folder / "src", fault.probe) else "was not caught"


@cache
def unplanted(probe: Probe) -> str:
    """Return what a probe finds in the source as it is."""
    return ask(SOURCE, probe)


def ask(source: Path, probe: Probe) -> str:
    """Return the first problem that a probe finds in a source, by the server."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps([str(source), *astuple(probe)]) + "\n")
    server.stdin.flush()
    return str(json.loads(server.stdout.readline()))


@cache
def _server() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def serve() -> None:
    """Answer requests, each in a child: this process never imports resfit."""
    import sklearn.datasets
    import torch
    import torch._dynamo

    assert sklearn.datasets
    torch.set_num_threads(1)
    assert "resfit" not in sys.modules
    for line in sys.stdin:
        source, *probe = json.loads(line)
        with tempfile.TemporaryDirectory(prefix="planted-") as base:
            place = Path(base)
            task = answer(place, source, Probe(*probe))
            try:
                code = forks.run(task, place / "log", 600.0)
            except forks.Hung as error:
                code = 1
                (place / "answer").write_text(str(error))
            found = (place / "answer").read_text() if (place / "answer").exists() else f"exit code {code}"
        print(json.dumps(found), flush=True)


def answer(base: Path, source: str, probe: Probe) -> Callable[[], int]:
    """Return a task that writes the first problem that a probe finds to `base`/answer."""

    def task() -> int:
        sys.path.insert(0, source)
        import resfit

        assert str(resfit.__file__).startswith(source)
        import tiny

        forks.BOUND = BOUND
        tiny.prepare(base, warm=False)
        import resfit.training.launch

        (base / "answer").write_text(resumed(base, probe.pattern) if probe.figure == "resumed" else first(base, probe))
        return 0

    return task


def first(base: Path, probe: Probe) -> str:
    """Return the first problem of the rounds that a probe names."""
    import run
    import writers

    if probe.writers:
        writers.WRITERS = {name: writers.WRITERS[name] for name in probe.writers}
    figure = run.FIGURES[probe.figure]
    chosen = [item for item in figure.rounds(base) if re.search(probe.pattern, item.key)][: probe.count]
    assert chosen, probe
    for item in chosen:
        if problem := run.tried(figure, base, item)["problem"]:
            return f"{item.key}: {problem}"
    return ""


def resumed(base: Path, recipe: str) -> str:
    """Kill runs that write a checkpoint each step or each epoch before some of their renames, and compare their ends."""
    import tiny
    import watch

    def task(out: Path, each_step: bool) -> int:
        if each_step:
            tiny.save_each_step()
        return tiny.begin(base, recipe, out, "--seed", 1)

    for each_step, when in ((True, 9), (True, 14), (False, 8), (False, 10), (True, 17), (True, 20), (False, 12)):
        out, log = base / f"{recipe}-{each_step}-{when}", base / "killed.log"
        options = ["-e", f"inject=rename:signal=SIGKILL:when={when}"]
        code, _ = watch.run(lambda out=out, each_step=each_step: task(out, each_step), log, options)  # type: ignore[misc]
        if code != -9:
            return f"was not killed at rename {when}: exit code {code}"
        if code := forks.run(lambda out=out: tiny.go_on(base, recipe, out, "--seed", 1), log):  # type: ignore[misc]
            return f"exit code {code}: {log.read_text().splitlines()[-1:]}"
        if problem := tiny.lost(base, recipe, out, "--seed", 1):
            return problem
    return ""


FIGURE = Figure("planted faults: not caught", rounds, check)

if __name__ == "__main__":
    serve()
