"""Checkpoints: one safetensors file with a JSON header and a checksum, written durably; the newest that verifies is used."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from resfit import durable
from resfit.errors import ResourceError

KEEP = 2


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], header: dict[str, Any], keep: int = -1
) -> None:
    """Write `step-<step>.safetensors` to `folder`; remove all but the newest KEEP and the one of step `keep`."""
    write_tensors(checkpoint_file(folder, step), tensors, header | {"step": step})
    for old in checkpoints(folder)[:-KEEP]:
        if old != checkpoint_file(folder, keep):
            durable.remove(old)


Loaded = tuple[dict[str, Tensor], dict[str, Any], list[str]]


def load_newest(folder: Path, same: Mapping[str, Any] | None = None, step: int | None = None) -> Loaded:
    """Return tensors and header of the newest checkpoint that verifies, and a line for each damaged one passed over.

    `same` is what its header must say, so that no other run's is taken; `step` asks for that one alone. Raises
    ResourceError when none is left.
    """
    damaged = []
    for path in reversed(checkpoints(folder)) if step is None else [checkpoint_file(folder, step)]:
        try:
            tensors, header = read_tensors(path)
            _refuse_other(path, header, same or {})
        except (ValueError, OSError) as error:
            damaged.append(f"{path}: damaged checkpoint passed over: {error}")
            continue
        return tensors, header, damaged
    why = f" ({'; '.join(damaged)})" if damaged else ""
    raise ResourceError(f"{folder}: no checkpoint to resume from{why}. Start over with `resfit resume --fresh`.")


def _refuse_other(path: Path, header: Mapping[str, Any], same: Mapping[str, Any]) -> None:
    if checkpoint_file(path.parent, header.get("step", -1)) != path:
        raise ValueError(f"it holds step {header.get('step')}")
    for word, value in same.items():
        if header.get(word) != value:
            raise ValueError(f"it is another run's: its {word} differs")


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the oldest first. Raises ResourceError for one that cannot be read."""
    try:
        return sorted(folder.glob("step-*.safetensors"))
    except OSError as error:
        raise ResourceError(f"{folder}: cannot be read: {error.strerror}. Mend that, and resume.") from error


def checkpoint_file(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step lies."""
    return folder / f"step-{step:09d}.safetensors"


def read_step(path: Path) -> int:
    """Return the step in a checkpoint's name."""
    return int(path.name.split(".")[0].removeprefix("step-"))


def drop_later(folder: Path, step: int) -> None:
    """Remove the checkpoints after a step, the newest first: what is left is a run that has not come so far."""
    for path in reversed(checkpoints(folder)):
        if read_step(path) > step:
            durable.remove(path, must=True)


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write what `pack_tensors` makes through the durable writer."""
    durable.write_bytes(path, pack_tensors(tensors, header))


def pack_tensors(tensors: dict[str, Tensor], header: dict[str, Any]) -> bytes:
    """Return tensors and a JSON header as a safetensors file, with a checksum over both."""
    plain = {name: value.detach().to("cpu").contiguous() for name, value in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    # one key: safetensors writes several in an order that changes from process to process
    return save(plain, metadata={"resfit": f"{_checksum(plain, text)} {text}"})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors (on the CPU) and header; raises ValueError when the file is not whole or was changed, OSError."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from error
    except RuntimeError as error:  # torch maps the file, and says in words alone what the system answered
        number = re.search(r"unable to open file .*\((\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    checksum, _, text = metadata.get("resfit", "").partition(" ")
    if checksum != _checksum(tensors, text):
        raise ValueError("the checksum does not match")
    header: dict[str, Any] = json.loads(text)
    return tensors, header


def _checksum(tensors: dict[str, Tensor], header: str) -> str:
    digest = hashlib.blake2b(header.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)  # no copy
    return digest.hexdigest()
