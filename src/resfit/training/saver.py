"""What a run writes while it trains. What the disk does not take is kept in memory and tried again with every checkpoint."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from resfit import durable
from resfit.errors import ResourceError
from resfit.runs import Run
from resfit.training.checkpoint import pack_tensors, save_checkpoint
from resfit.training.divergence import refuse_diverged
from resfit.training.ranks import present
from resfit.training.runlog import say
from resfit.training.state import TrainState, header_of, state_tensors


class Saver:
    """Writes chosen weights, rows of metrics and checkpoints, in this order: a checkpoint stands for all before it.

    `same` is what each checkpoint's header says of the run, `steps` the number of an epoch's steps. Of many ranks the first
    writes; the others only look whether what they hold is finite.
    """

    def __init__(self, run: Run, same: dict[str, Any], steps: int) -> None:
        self.run, self.same, self.steps = run, same, steps
        self.writes = present().first
        self.rows = run.metrics if self.writes else []
        self.waiting: dict[Path, bytes] = {}
        self.failing = False

    def choose(self, epoch: int, weights: dict[str, Tensor], note: dict[str, Any]) -> None:
        """Keep the weights of an epoch as the run's chosen ones, until the next checkpoint writes them."""
        if not self.writes:
            return
        self.waiting = {path: data for path, data in self.waiting.items() if path == self.run.metrics_file}
        self.waiting[self.run.best_file(epoch)] = pack_tensors(weights, note)

    def add_row(self, row: dict[str, Any]) -> None:
        """Keep an epoch's row of metrics, until the next checkpoint writes it."""
        if not self.writes:
            return
        self.rows.append(row)
        lines = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        self.waiting[self.run.metrics_file] = lines.encode()

    def save(self, state: TrainState, must: bool = False) -> None:
        """Write a checkpoint and all that waits for one; where that does not work say so, or raise ResourceError if it `must`.

        Raises Diverged, with nothing written, where the state is not finite.
        """
        tensors = state_tensors(state)
        refuse_diverged(state, tensors)
        if not self.writes:
            return
        start = state.epoch * self.steps  # of the epoch: what a rollback goes back to
        try:
            self.flush()
            save_checkpoint(self.run.checkpoints, state.step, tensors, header_of(state) | self.same, start)
        except ResourceError as error:
            if must:
                raise
            say(f"{error} Training goes on; this is tried again with the next checkpoint.")
            self.failing = True
            return
        self.run.drop_other_best(state.best.epoch)  # only now does a checkpoint name the new one
        if self.failing:
            say(f"{self.run.folder}: written again, nothing is missing")
            self.failing = False

    def flush(self) -> None:
        """Write what waits. Raises ResourceError."""
        for path in list(self.waiting):
            durable.write_bytes(path, self.waiting[path])
            del self.waiting[path]
