"""The machine's side of a run: device, threads, glibc's allocator, versions, commit. No torch at import."""

import contextlib
import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import resfit
from resfit.errors import ResourceError

if TYPE_CHECKING:
    import torch

KEEP_BYTES = (
    1 << 30
)  # blocks below this stay in the heap: activations are then not mapped and zeroed anew at every step


def choose_device(name: str) -> "torch.device":
    """Return the device `cpu`, `cuda`, `cuda:1`, `mps` or, for `auto`, the best there is; raises ResourceError without it."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ResourceError(f"--device {name}: is not usable here. Use cpu, or see `resfit doctor`.") from error
    return device


def tune(threads: int) -> None:
    """Set torch's thread count and, on glibc, the allocator's thresholds; denormals count as zero; cuDNN times its kernels."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True  # the shapes stay the same
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has no mallopt
            libc = ctypes.CDLL(None)
            libc.mallopt(-3, KEEP_BYTES)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, KEEP_BYTES)  # M_TRIM_THRESHOLD


def default_threads() -> int:
    """Return the number of threads to compute with: $OMP_NUM_THREADS, else the cores this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16 (AVX512-BF16, AMX, Arm's BF16); only Linux tells, elsewhere no."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = [line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return bool(flags) and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags[0])


def describe(device: "torch.device") -> str:
    """Return the device in words, for a run's record."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    import numpy as np
    import torch

    return {
        "resfit": resfit.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """Return the commit of resfit's own checkout, with + where files differ from it; None when installed from a wheel.

    $RESFIT_COMMIT says it where a checkout was copied without its history.
    """
    if "RESFIT_COMMIT" in os.environ:
        return os.environ["RESFIT_COMMIT"]
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
