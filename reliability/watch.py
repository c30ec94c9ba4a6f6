"""Run a child under strace: list its file system calls in a folder, or inject a kill or an error into one of them."""

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import forks

CALLS = (
    "openat,creat,write,pwrite64,writev,fsync,fdatasync,msync,rename,renameat,renameat2,link,unlink,unlinkat,mkdir,"
    "mkdirat,rmdir,ftruncate,truncate,fallocate,chmod,fchmod,fchmodat,flock,close"
)
LINE = re.compile(r"(\w+)\((.*)\)\s+= (\?|-?\w+)(.*)")
NUMBER = re.compile(r"\d{3,}|(?<=seed-)\d")
RANDOM = re.compile(r"(\.[^/]+\.)[a-z0-9_]{8}(\.tmp)|(\.building-)[a-z0-9_]{8}|\b[0-9a-f]{32}\b")


class Call(NamedTuple):
    """One call: its name, the how-many-th of that name, its arguments as strace prints them, what it returned, the rest."""

    name: str
    ordinal: int
    arguments: str
    returned: str
    rest: str


def run(
    task: Callable[[], int], log: Path, options: Sequence[str] = (), bound: float | None = None
) -> tuple[int, list[Call]]:
    """Run `task` in a child that strace watches from its first line on; returns the exit code and its calls."""
    gate = forks.Gate()
    pid = forks.start(task, log, gate)
    trace = log.with_suffix(".strace")
    command = ["strace", "-p", str(pid), "-o", str(trace), "-y", "-e", f"trace={CALLS}", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watcher:
        assert watcher.stderr is not None
        said = watcher.stderr.readline()
        if "attached" not in said:
            forks.kill(pid)
            raise RuntimeError(f"strace: {said.strip()}")
        gate.open()
        code = forks.wait(pid, bound)
        watcher.stderr.read()
    return code, read(trace)


def read(trace: Path) -> list[Call]:
    """Return the calls of a trace, in order."""
    counts: dict[str, int] = {}
    found = []
    for line in trace.read_text().splitlines():
        match = LINE.match(line)
        if match is None:  # an exit, a signal, a call that the kill cut off
            continue
        name, arguments, returned, rest = match.groups()
        counts[name] = counts.get(name, 0) + 1
        found.append(Call(name, counts[name], arguments, returned, rest))
    return found


def kind(call: Call, folder: Path) -> str:
    """Return what a call does to which file of a folder, without what changes from run to run."""
    found = re.findall(rf'[<"]{re.escape(str(folder))}([^">]*)[>"]', call.arguments)
    path = RANDOM.sub(lambda match: "".join(part or "" for part in match.groups()), found[-1] if found else "")
    way = "read" if call.name == "openat" and "O_RDONLY" in call.arguments else ""
    return " ".join(word for word in (call.name, way, NUMBER.sub("N", path) or "/") if word)


def injected(calls: Sequence[Call]) -> Call | None:
    """Return the call that an error was put into, or that the process was killed before."""
    marked = [call for call in calls if call.returned == "?" or "INJECTED" in call.rest]
    return marked[0] if marked else None


def killing(call: Call) -> list[str]:
    """Return the options that kill the process before a call is carried out."""
    return ["-e", f"inject={call.name}:signal=SIGKILL:when={call.ordinal}"]


def failing(call: Call, error: str) -> list[str]:
    """Return the options that make a call fail once, or, for `short`, take a single byte."""
    how = "retval=1" if error == "short" else f"error={error}"
    return ["-e", f"inject={call.name}:{how}:when={call.ordinal}"]
