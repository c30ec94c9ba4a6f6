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

# blocks below this stay in the heap: activations are then not mapped and zeroed anew at every step
KEEP_BYTES = 1 << 30
CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
NO_LIMIT = 1e6  # cores


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


def is_surely_cpu(name: str) -> bool:
    """Return whether `choose_device(name)` would be the CPU, as far as can be told without torch, which takes seconds."""
    if name != "auto" or sys.platform == "darwin":
        return name == "cpu"
    from importlib import metadata  # slow to import

    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or metadata.version("torch").endswith("+cpu"):
        return True
    cards = (*Path("/dev").glob("nvidia[0-9]*"), *(Path(f"/dev/{name}") for name in ("kfd", "dxg")))
    return sys.platform == "linux" and not any(card.exists() for card in cards)


def tune(threads: int) -> None:
    """Set torch's thread count and, on glibc, the allocator's thresholds; denormals count as zero; cuDNN times kernels.

    Under a preloaded tcmalloc or jemalloc nothing else allocates, and glibc's thresholds have no effect.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.backends.cudnn.benchmark = True  # the shapes stay the same
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # musl has no mallopt
            libc = ctypes.CDLL(None)
            if not libc.mallopt(-3, KEEP_BYTES):  # M_MMAP_THRESHOLD; before glibc 2.35 it may not exceed 32 MiB
                libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped
            libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: what a step freed is never given back, however much


def default_threads() -> int:
    """Return the number of threads to compute with: $OMP_NUM_THREADS, else the cores this process may use.

    These are the cores of its affinity, or fewer where its container's quota allows less of their time.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, int(cpu_quota())))


def cpu_quota(root: Path = CGROUPS, own: Path = OWN_GROUPS) -> float:
    """Return how many cores' time this process's control groups allow, a large number where they set no limit.

    A group is held to the least of its own quota and its parents'; version 2 says `cpu.max`, version 1 two files.
    """
    return min([NO_LIMIT, *map(_quota, _control_groups("cpu", root, own))])


def _control_groups(controller: str, root: Path, own: Path) -> list[Path]:
    """Return the folders of the control groups, and their parents, that this process is in and that limit `controller`."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        mount = root / controller if controllers else root
        group = mount / path.lstrip("/")
        found += [folder for folder in (group, *group.parents) if folder.is_relative_to(mount)]
    return found


def _quota(group: Path) -> float:
    try:
        if (group / "cpu.max").exists():
            allowed, period = (group / "cpu.max").read_text().split()
        else:
            allowed, period = ((group / f"cpu.cfs_{word}_us").read_text() for word in ("quota", "period"))
        return NO_LIMIT if allowed == "max" or int(allowed) <= 0 else int(allowed) / int(period)
    except (OSError, ValueError):
        return NO_LIMIT


def has_bfloat16() -> bool:
    """Return whether this CPU has instructions for bfloat16 (AVX512-BF16, AMX, Arm's BF16); only Linux tells, elsewhere no."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = [line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return bool(flags) and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags[0])


def free_memory() -> int:
    """Return the bytes that this process may still take: what the system calls available, less under a control group's limit.

    Elsewhere than on Linux it is all the memory there is, or sys.maxsize where the system does not say.
    """
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return min(int(facts["MemAvailable"].split()[0]) * 1024, memory_quota())
    except (OSError, KeyError):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return sys.maxsize


def memory_quota(root: Path = CGROUPS, own: Path = OWN_GROUPS) -> int:
    """Return the bytes left to this process by its control groups, sys.maxsize where they set no limit."""
    return min([sys.maxsize, *map(_memory_left, _control_groups("memory", root, own))])


def _memory_left(group: Path) -> int:
    names = ("memory.max", "memory.current", "inactive_file")
    if not (group / names[0]).exists():
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        limit, taken = (int((group / name).read_text()) for name in names[:2])  # "max" is no number
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, limit - taken + int(facts[names[2]]))  # pages of files are given back when they are needed
    except (OSError, ValueError, KeyError):
        return sys.maxsize


def synchronize(device: "torch.device") -> None:
    """Wait until the device has done what it was given; a CPU has."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


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
