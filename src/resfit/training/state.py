"""TrainState: all that changes in training. What is not here is a pure function of (seed, step, purpose)."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from resfit.training.schedule import Plateau

SCALING = ("scale", "_growth_tracker")  # what changes of GradScaler's state


@dataclass
class Best:
    """The best epoch so far by validation accuracy, ties by nll; epoch -1 is none yet."""

    epoch: int = -1
    accuracy: float = -1.0
    nll: float = float("inf")

    def is_beaten_by(self, accuracy: float, nll: float) -> bool:
        """Return whether these are better; NaN never is."""
        return accuracy > self.accuracy or (accuracy == self.accuracy and nll < self.nll)


@dataclass
class TrainState:
    """Model, optimizer, average and counters: steps taken, epochs whose evaluation is done too, seconds in the running epoch.

    The scaler, float16's alone, holds the loss's scale and the steps since it last changed.

    epochs is the number planned by a clock, where it is (timelimit.py), else None: the recipe's.
    rollbacks has a row for each return to an earlier checkpoint. sums (4,) holds the running epoch's (loss, correct, images,
    first step whose loss or gradient was not finite or -1).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] | None
    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    best: Best = field(default_factory=Best)
    plateau: Plateau = field(default_factory=Plateau)
    rollbacks: list[dict[str, Any]] = field(default_factory=list)
    epochs: float | None = None
    scaler: torch.amp.GradScaler | None = None
    sums: Tensor = field(default_factory=lambda: new_sums(torch.device("cpu")))

    def weights(self) -> dict[str, Tensor]:
        """Return what is evaluated and shipped: the average where there is one, else the model's own."""
        return self.average if self.average is not None else self.model.state_dict()

    @property
    def lr_factor(self) -> float:
        """What the schedule's rate is multiplied by: the plateau's factor, and the rollbacks'."""
        return self.plateau.factor * (self.rollbacks[-1]["lr_factor"] if self.rollbacks else 1.0)


@contextlib.contextmanager
def shipped_weights(state: TrainState) -> Iterator[nn.Module]:
    """Give the model with the weights that are evaluated and shipped; outside it has its own again."""
    if state.average is None:
        yield state.model
        return
    own = {name: value.clone() for name, value in state.model.state_dict().items()}
    state.model.load_state_dict(state.average)
    try:
        yield state.model
    finally:
        state.model.load_state_dict(own)


def new_sums(device: torch.device) -> Tensor:
    """Return the running epoch's sums at its start, float64 (4,)."""
    kind = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    return torch.tensor([0.0, 0.0, 0.0, -1.0], dtype=kind, device=device)


def header_of(state: TrainState) -> dict[str, Any]:
    """Return what of a state is no tensor, for a checkpoint's header."""
    return {
        "step": state.step,
        "epoch": state.epoch,
        "seconds": state.seconds,
        "best": _plain(state.best),
        "plateau": _plain(state.plateau),
        "rollbacks": state.rollbacks,
    } | ({} if state.epochs is None else {"epochs": state.epochs})


def _plain(value: Best | Plateau) -> dict[str, Any]:
    """Return the fields, or nothing where all are as at the start: infinity is no JSON."""
    return asdict(value) if value != type(value)() else {}


def adopt(state: TrainState, tensors: dict[str, Tensor], header: Mapping[str, Any]) -> None:
    """Make a state what a checkpoint's tensors and header say."""
    restore(state, tensors, state.sums.device)
    state.step, state.epoch, state.seconds = header["step"], header["epoch"], header["seconds"]
    state.best = Best(**header["best"])
    state.plateau = Plateau(**header["plateau"])
    state.rollbacks, state.epochs = list(header["rollbacks"]), header.get("epochs")


def state_tensors(state: TrainState) -> dict[str, Tensor]:
    """Return every tensor of a state under a flat name, as they are (no copies)."""
    tensors = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    for index, slots in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optim.{index}.{slot}": value for slot, value in slots.items() if isinstance(value, Tensor)}
    if state.average is not None:
        tensors |= {f"average.{name}": value for name, value in state.average.items()}
    if state.scaler is not None:
        scaling = state.scaler.state_dict()
        tensors["scaler"] = torch.tensor([scaling[key] for key in SCALING], dtype=torch.float64)
    return tensors | {"sums": state.sums}


@torch.no_grad()
def restore(state: TrainState, tensors: dict[str, Tensor], device: torch.device) -> None:
    """Put the tensors of `state_tensors` back into a freshly made state."""
    part: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optim": {}}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind in part:
            part[kind][rest] = value
    state.model.load_state_dict(part["model"])
    if state.average is not None:
        for name, value in state.average.items():
            value.copy_(part["average"][name])
    owners = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in part["optim"].items():
        index, _, slot = name.partition(".")
        owner = owners[int(index)]
        if value.shape == owner.shape:  # in the parameter's memory format, else every step is slower from here on
            value = torch.empty_like(owner, dtype=value.dtype).copy_(value)
        slots.setdefault(int(index), {})[slot] = value
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": slots})
    if state.scaler is not None and "scaler" in tensors:
        scale, steps = tensors["scaler"].tolist()
        state.scaler.load_state_dict(state.scaler.state_dict() | dict(zip(SCALING, (scale, int(steps)), strict=True)))
    state.sums = tensors["sums"].to(device)
