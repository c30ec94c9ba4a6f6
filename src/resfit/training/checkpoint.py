"""Checkpoints: one safetensors file with a JSON header and a checksum, written durably; the newest that verifies is used."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from resfit import durable
from resfit.errors import ResourceError

KEEP = 2


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write `step-<step>.safetensors` to `folder` and remove all but the newest KEEP."""
    write_tensors(folder / f"step-{step:09d}.safetensors", tensors, header)
    for old in checkpoints(folder)[:-KEEP]:
        old.unlink(missing_ok=True)


def load_newest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]]:
    """Return tensors and header of the newest checkpoint that verifies, and a line for each damaged one passed over.

    Raises ResourceError when none is left.
    """
    damaged = []
    for path in reversed(checkpoints(folder)):
        try:
            tensors, header = read_tensors(path)
        except (ValueError, OSError) as error:
            damaged.append(f"{path}: damaged checkpoint passed over: {error}")
            continue
        return tensors, header, damaged
    why = f"; {len(damaged)} damaged" if damaged else ""
    raise ResourceError(f"{folder}: no checkpoint to resume from{why}. Train anew with another --out.")


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, the oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def write_tensors(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors and a JSON header as safetensors, with a checksum over both, through the durable writer."""
    plain = {name: value.detach().to("cpu").contiguous() for name, value in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    # one key: safetensors writes several in an order that changes from process to process
    durable.write_bytes(path, save(plain, metadata={"resfit": f"{_checksum(plain, text)} {text}"}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors (on the CPU) and header; raises ValueError when the file is not whole or was changed."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from error
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
