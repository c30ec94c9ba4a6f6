"""What `resfit doctor` finds on this machine: versions, devices, extras, writable folders, data."""

import importlib.metadata
import importlib.util
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch

import resfit
from resfit.data.cache import cache_folder
from resfit.data.cifar import accepted_names
from resfit.data.download import find
from resfit.evaluation.holdout import state_folder
from resfit.machine import choose_device, default_threads, describe

PACKAGES = ("torch", "numpy", "pillow", "simplejpeg", "safetensors", "pydantic", "tomli-w")
EXTRAS = {"digits": "sklearn", "plots": "matplotlib", "search": "optuna", "postgres": "psycopg", "cluster": "ray"}
EXTRAS |= {"export": "onnxscript", "hub": "huggingface_hub", "parquet": "pyarrow"}


def examine() -> dict[str, Any]:
    """Return what was found, as plain data."""
    return {
        "resfit": resfit.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": describe(choose_device("auto")),
        "cores": default_threads(),
        "cuda": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "extras": {name: importlib.util.find_spec(module) is not None for name, module in EXTRAS.items()},
        "folders": {
            name: {"path": str(folder), "writable": _writable(folder)}
            for name, folder in {
                "cache": cache_folder(),
                "ledger": state_folder(),
                "runs": Path("runs").absolute(),
            }.items()
        },
        "data": {
            name: str(found) if (found := find(accepted_names(name))) else None for name in ("cifar10", "cifar100")
        },
    }


def to_text(value: dict[str, Any]) -> str:
    """Return the findings as lines for people."""
    rows = [("resfit", value["resfit"]), ("python", f"{value['python']} on {value['platform']}")]
    rows += list(value["packages"].items())
    rows += [("device", f"{value['device']}, {value['cores']} cores")]
    rows += [
        ("extra " + name, "there" if ok else f"missing: pip install 'resfit[{name}]'")
        for name, ok in value["extras"].items()
    ]
    rows += [(name, f"{f['path']}{'' if f['writable'] else ' (not writable)'}") for name, f in value["folders"].items()]
    rows += [(name, path or "not found here") for name, path in value["data"].items()]
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


def _writable(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return False
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
