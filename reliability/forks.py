"""Children of a process that has imported torch once: a round costs a fork, and what is killed is a real process."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

BOUND = 60.0  # seconds after which a child counts as hung
BROKEN = 99  # exit code of a child that raised what the command line would not


class Hung(Exception):
    """A child took longer than its bound."""


class Gate:
    """Holds children back until `open` is called, so that they start at one moment."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()

    def wait(self) -> None:
        """Wait in a child."""
        os.close(self.into)
        os.read(self.out, 1)  # the end of the pipe

    def open(self) -> None:
        """Let every child go."""
        os.close(self.into)
        os.close(self.out)


def start(task: Callable[[], int], log: Path, gate: Gate | None = None) -> int:
    """Fork a child that runs `task` and exits with its result, output to `log`; returns its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = BROKEN
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        if gate is not None:
            gate.wait()
        code = task()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else BROKEN
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, bound: float | None = None) -> int:
    """Return a child's exit code, or minus the signal that ended it; kills it and raises Hung past the bound."""
    bound = BOUND if bound is None else bound
    deadline = time.monotonic() + bound
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    kill(pid)
    raise Hung(f"not done after {bound:g} s")


def kill(pid: int) -> int:
    """Send SIGKILL to a child, if it still runs, and return how it ended."""
    os.kill(pid, signal.SIGKILL)  # not waited for yet, so that the id is still its own
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(task: Callable[[], int], log: Path, bound: float | None = None) -> int:
    """Run `task` in a child to its end and return its exit code."""
    return wait(start(task, log), bound)
