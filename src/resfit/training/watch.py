"""The ranks' watch over each other: each tells torchrun's store that it lives; who dies, hangs or fails is named once.

A thread a rank. It sees at once that a process of its machine has died, and after the timeout that one anywhere answers no
more or does not come to where the others wait. Whoever sees it first writes a verdict into the store, prints the one line,
and every rank ends with the verdict's exit code.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from torch._C._distributed_c10d import Store

from resfit.errors import ResfitError, ResourceError
from resfit.escaping import visible

BEAT = 0.5  # seconds from one sign of life to the next
GRACE = 3.0  # seconds that the main thread has to leave by itself once a verdict stands
LOST = 2.5  # seconds without a sign of life that mean death where a connection is known to have broken


class Ended(Exception):
    """A rank died, hung or failed, and one line has said so; this one ends with it."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


@dataclass
class Peer:
    """A rank as known here: its machine, process and that one's birth; its last sign of life and move, and when they came."""

    host: str
    process: int
    birth: str | None
    beat: str = ""
    move: str = ""
    beat_at: float = 0.0
    move_at: float = 0.0

    @property
    def is_here(self) -> bool:
        """Return whether it runs on this machine, where processes can be looked at."""
        return self.host == socket.gethostname() and self.birth is not None


class Watch:
    """The thread, and what the main thread tells it: whether it waits for the others, its step, the run's folder."""

    def __init__(self, store: Store, rank: int, size: int, timeout: float, join_timeout: float) -> None:
        self.store, self.rank, self.world_size, self.timeout = store, rank, size, timeout
        self.over: Ended | None = None
        self.step, self.folder = 0, ""
        self.calls, self.waiting, self.broken = 0, False, False
        self._stop, self._claiming = threading.Event(), threading.Lock()
        self._before: Any = None  # of SIGTERM
        me = [socket.gethostname(), os.getpid(), birth(os.getpid())]
        store.set(f"who/{rank}", json.dumps(me))
        store.set(f"beat/{rank}", "0 0 0 0")
        self.peers = [self._meet(other, time.monotonic() + join_timeout) for other in range(size)]
        self._thread = threading.Thread(target=self._run, name="resfit-watch", daemon=True)
        self._thread.start()

    def _meet(self, rank: int, until: float) -> Peer:
        while not self.store.check([f"who/{rank}"]):
            if time.monotonic() > until:
                raise ResourceError(f"rank {rank} of {self.world_size}: did not come. See why it did not start.")
            time.sleep(0.05)
        now = time.monotonic()
        host, process, born = json.loads(self.store.get(f"who/{rank}"))
        return Peer(host, process, born, beat_at=now, move_at=now)

    def heed(self) -> None:
        """From now on see, where torchrun ends this rank because of another, which that is, before leaving.

        What catches the signal itself meanwhile, as training does, comes first.
        """
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._be_ended)

    def _be_ended(self, number: int, frame: object) -> None:
        until = time.monotonic() + 2 * BEAT
        while self.over is None and time.monotonic() < until:
            time.sleep(0.02)
        raise self.over or SystemExit(128 + number)

    @contextlib.contextmanager
    def wait(self) -> Iterator[None]:
        """Note that the main thread waits for the others inside; an error of the connection becomes the verdict (Ended)."""
        if self.over is not None:
            raise self.over
        self.calls, self.waiting, begun = self.calls + 1, True, time.monotonic()
        try:
            yield
        except RuntimeError as error:
            self.broken = time.monotonic() - begun < self.timeout  # else it has waited in vain
            raise self._reason(error) from None
        finally:
            self.waiting = False

    def wait_for(self, key: str, seconds: float = float("inf")) -> bool:
        """Return whether a key came into the store within `seconds`; raises Ended. Meanwhile this rank counts as busy."""
        until = time.monotonic() + seconds
        while not self.store.check([key]):
            if self.over is not None:
                raise self.over
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    def leave(self) -> None:
        """End as a rank that has done its part: not before rank 0 has, and rank 0, which may have the store, last."""
        self.store.set(f"left/{self.rank}", "1")
        if self.rank:
            self.wait_for("left/0")
        self.store.set(f"gone/{self.rank}", "1")
        others = range(1, self.world_size) if self.rank == 0 else ()
        with contextlib.suppress(Ended):
            all(self.wait_for(f"gone/{other}", GRACE) for other in others)
        self.stop()

    def fail(self, error: BaseException) -> None:
        """Make an error of this rank everybody's end; raises Ended, which says nothing more, where there is a verdict."""
        if threading.current_thread() is threading.main_thread():
            # torchrun's, which comes as soon as a rank has left: the line and the exit code come first
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if isinstance(error, Ended):
            return
        code = {SystemExit: getattr(error, "code", 1), KeyboardInterrupt: 130}.get(type(error), 1)
        if not self._claim("", int(getattr(error, "exit_code", code) or 0)):
            assert self.over is not None
            raise self.over from None
        if isinstance(error, ResfitError):
            error.claimed = True

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(GRACE)
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _run(self) -> None:
        count = 0
        while not self._stop.wait(BEAT):
            count += 1
            try:
                self.store.set(f"beat/{self.rank}", f"{count} {self.calls} {int(self.waiting)} {self.step}")
                self._look()
            except RuntimeError:  # torch's errors of the store
                if not self._stop.is_set() and self.over is None:
                    text = "torchrun: its store cannot be reached: it has ended, or the machine of rank 0 has"
                    self.over = Ended(f"{text}. {self._advice()}", 6)
                    if os.environ.get("LOCAL_RANK") == "0":
                        tell(self.over)
            if self.over is not None:
                if self._stop.wait(GRACE):
                    return
                os._exit(self.over.exit_code)

    def _look(self) -> None:
        if self.store.check(["verdict"]):
            self._claim("", 0)  # reads it
            return
        now, beats = time.monotonic(), self.store.multi_get([f"beat/{rank}" for rank in range(self.world_size)])
        for rank, (peer, raw) in enumerate(zip(self.peers, beats, strict=True)):
            beat = raw.decode()
            _, calls, waiting, step = beat.split()
            if beat != peer.beat:
                peer.beat, peer.beat_at = beat, now
            if f"{calls} {waiting}" != peer.move:
                peer.move, peer.move_at = f"{calls} {waiting}", now
            what = "" if rank == self.rank else self._wrong(peer, waiting == "1", now)
            if what and not self.store.check([f"left/{rank}", "left/0"]):  # rank 0 still does the end of the run
                where = f"last heard of at step {step}, process {peer.process} on {peer.host}"
                self._claim(f"rank {rank} of {self.world_size}: {what} ({where}). {self._advice()}", 6, peer)
                return

    def _wrong(self, peer: Peer, waiting: bool, now: float) -> str:
        """Return what is wrong with a rank in words, or nothing."""
        if peer.is_here and birth(peer.process) != peer.birth:
            return "has died"
        silent = now - peer.beat_at
        if self.broken and silent > LOST:
            return "has died"
        if silent > self.timeout:
            return f"has not answered for {self.timeout:g} s"
        stuck = self.waiting and not waiting and now - max(peer.move_at, self.peers[self.rank].move_at) > self.timeout
        return f"hangs: the others have waited for it for {self.timeout:g} s" if stuck else ""

    def _reason(self, error: RuntimeError) -> Ended:
        """Return the verdict, once it is found, of a connection that broke under the main thread."""
        until = time.monotonic() + LOST + GRACE
        while self.over is None and time.monotonic() < until:
            time.sleep(0.02)
        if self.over is None:
            line = str(error).splitlines()[0][:200]
            self._claim(f"rank {self.rank} of {self.world_size}: lost the others ({line}). {self._advice()}", 6)
        assert self.over is not None
        return self.over

    def _claim(self, text: str, code: int, peer: Peer | None = None) -> bool:
        """Write the verdict, with its line printed, unless there is one; return whether this rank wrote it.

        The `peer` that it is about is killed where it still lives, before the main thread can see the verdict and leave.
        """
        with self._claiming:
            if self.over is not None:
                return False
            mine = json.dumps([self.rank, code, text])
            found = self.store.compare_set("verdict", "", mine).decode()
            _, code, text = json.loads(found)
            if peer is not None and peer.is_here and birth(peer.process) == peer.birth:
                os.kill(peer.process, signal.SIGKILL)  # torchrun would give a stopped one half a minute
            self.over = Ended(text, code)
            if found == mine and text:
                tell(self.over)
            return bool(found == mine)

    def _advice(self) -> str:
        return f"Continue with `resfit resume {quote(self.folder)}`." if self.folder else "Start again."


def tell(ended: Ended) -> None:
    """Print the line to the real stderr: a rank other than 0 has its own closed."""
    print(f"resfit: {visible(str(ended))}", file=sys.__stderr__, flush=True)


def birth(process: int) -> str | None:
    """Return when a living process began, in the kernel's ticks, by which it is known from a later one of its number.

    None for a dead one, and where there is no /proc.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
