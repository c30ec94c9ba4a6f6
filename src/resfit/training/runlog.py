"""What a run says while it goes: rows of metrics on disk, lines or a bar on the terminal, and signals that ask it to stop."""

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resfit import durable
from resfit.escaping import visible
from resfit.training.schedule import total_steps
from resfit.training.state import TrainState


class Interrupted(Exception):
    """A signal asked training to stop; a checkpoint is on disk. Exit code 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Pruned(Exception):
    """Whoever watches training has seen enough: it ends, and no bundle is written."""


class Interrupt:
    """Remembers SIGINT, SIGTERM or SIGHUP until the running step is done; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal = 0

    def leave(self) -> None:
        """Raise Interrupted if a signal has come; called where a checkpoint has just been written."""
        if self.signal:
            raise Interrupted(self.signal)

    @contextlib.contextmanager
    def watching(self) -> Iterator["Interrupt"]:
        """Catch the signals inside; outside the main thread, where Python forbids it, they are left alone."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        names = ("SIGINT", "SIGTERM", "SIGHUP")  # the last, of a terminal that is closed, is not on Windows
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        # what is ignored stays so: nohup wants training to go on
        caught = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in caught}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number


def say(line: str) -> None:
    """Print a line for people, to stderr."""
    print(visible(line), file=sys.stderr, flush=True)


def keep_rows(path: Path, epochs: int) -> None:
    """Drop the rows of epochs that the checkpoint has not seen, and a line cut short."""
    if path.exists():
        lines = [line for line in path.read_text().split("\n")[:-1] if json.loads(line)["epoch"] < epochs]
        durable.write_text(path, "".join(f"{line}\n" for line in lines))


class Progress:
    """Shows training on stderr: a live line on a terminal, elsewhere one plain line an epoch."""

    def __init__(self, epochs: float, images_per_epoch: int, label: str = "") -> None:
        self.epochs, self.images, self.label = epochs, images_per_epoch, label
        self.live = sys.stderr.isatty()
        self.started, self.first_step, self.drawn = time.monotonic(), -1, 0.0

    def step(self, state: TrainState, steps_per_epoch: int, seconds: float) -> None:
        """Draw the live line, at most five times a second."""
        now = time.monotonic()
        if self.first_step < 0:
            self.first_step, self.started = state.step, now
        if not self.live or now - self.drawn < 0.2:
            return
        self.drawn = now
        done, total = state.step, total_steps(self.epochs, steps_per_epoch)
        rate = (done - self.first_step) / max(now - self.started, 1e-9)
        left = _clock((total - done) / rate) if rate else "?"
        speed = rate * self.images / steps_per_epoch
        bar = ("#" * (20 * done // total)).ljust(20, ".")
        text = (
            f"{self.label}[{bar}] epoch {state.epoch + 1}/{math.ceil(self.epochs)}  {speed:,.0f} images/s  {left} left"
        )
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()

    def epoch(self, row: dict[str, Any]) -> None:
        """Print the line of a finished epoch."""
        if self.live:
            sys.stderr.write("\r\x1b[2K")
        val = f"  val {row['val_accuracy']:.2%}" if "val_accuracy" in row else ""
        print(
            f"{self.label}epoch {row['epoch'] + 1}/{math.ceil(self.epochs)}  loss {row['train_loss']:.4f}  "
            f"train {row['train_accuracy']:.2%}{val}{' *' if row['best'] else ''}  "
            f"lr {row['lr']:.3g}  {row['images_per_second']:,.0f} images/s  {row['train_seconds']:.1f} s",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
