"""Random damage to files of checkpoints and of chosen weights: always noticed, and the checkpoint before is found."""

import random
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import forks
import tiny
from figure import Figure, Round, spread

EACH = 60  # of each file and damage
RESUMED = 2  # of each damage: the run is resumed to its end, in a process of its own
RECIPES = ("default", "speed-cpu", "r2-adam", "modern")
BLOCK = 512
Damage = Callable[[bytes, random.Random, bytes], bytes]


def _flip(data: bytes, draw: random.Random, count: int) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _blocks(data: bytes, draw: random.Random) -> tuple[int, int]:
    size = min(BLOCK, len(data) // 4)
    return draw.randrange(len(data) // size - 1) * size, size


def _zero(data: bytes, draw: random.Random, other: bytes) -> bytes:
    at, size = _blocks(data, draw)
    return data[:at] + bytes(size) + data[at + size :]


def _swap(data: bytes, draw: random.Random, other: bytes) -> bytes:
    (a, size), (b, _) = sorted([_blocks(data, draw), _blocks(data, draw)])
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :] if a < b else data


def _repeat(data: bytes, draw: random.Random, other: bytes) -> bytes:
    (a, size), (b, _) = _blocks(data, draw), _blocks(data, draw)
    return data[:a] + data[b : b + size] + data[a + size :]


def _head(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _in_header(data: bytes, draw: random.Random, other: bytes) -> bytes:
    return _flip(data[: _head(data)], draw, 1) + data[_head(data) :]


def _digit(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """Change a digit of the header: a step, an offset, a shape, the checksum."""
    digits = [index for index in range(8, _head(data)) if data[index : index + 1].isdigit()]
    at = draw.choice(digits)
    return data[:at] + str((int(data[at : at + 1]) + draw.randint(1, 9)) % 10).encode() + data[at + 1 :]


def _torn(data: bytes, draw: random.Random, other: bytes) -> bytes:
    at = draw.randrange(1, min(len(data), len(other)))
    return data[:at] + other[at:]


DAMAGE: dict[str, Damage] = {
    "a bit": lambda data, draw, other: _flip(data, draw, 1),
    "many bits": lambda data, draw, other: _flip(data, draw, draw.randint(2, 64)),
    "a bit of the header": _in_header,
    "a digit of the header": _digit,
    "the header's length": lambda data, draw, other: draw.randbytes(8) + data[8:],
    "a byte missing": lambda data, draw, other: data[: (at := draw.randrange(len(data)))] + data[at + 1 :],
    "a byte more": lambda data, draw, other: data[: (at := draw.randrange(len(data)))] + draw.randbytes(1) + data[at:],
    "cut": lambda data, draw, other: data[: draw.randrange(1, len(data))],
    "cut in the header": lambda data, draw, other: data[: draw.randrange(1, _head(data))],
    "only the header": lambda data, draw, other: data[: _head(data)],
    "longer by zeros": lambda data, draw, other: data + bytes(draw.randint(1, 5000)),
    "longer by anything": lambda data, draw, other: data + draw.randbytes(draw.randint(1, 5000)),
    "a block of zeros": _zero,
    "two blocks swapped": _swap,
    "a block in place of another": _repeat,
    "the end of an older one": _torn,
    "empty": lambda data, draw, other: b"",
    "all zeros": lambda data, draw, other: bytes(len(data)),
    "text": lambda data, draw, other: b"not a checkpoint at all " * draw.randint(1, 50),
    "anything": lambda data, draw, other: draw.randbytes(len(data)),
}
OTHER_RUN = "another run's checkpoint in its place"
FILES = ("checkpoint", "chosen weights")


def rounds(base: Path) -> list[Round]:
    """Return rounds for each file of each recipe and each damage, class: file and damage."""
    found = [
        Round(f"{file} of {recipe}: {damage}", str(number), (file, recipe, damage))
        for recipe in (*RECIPES, "synthetic")
        for file in FILES
        for damage in DAMAGE
        for number in range(EACH)
    ]
    found += [
        Round(f"resumed: {damage}", str(number), ("resume", "default", damage))
        for damage in (*DAMAGE, OTHER_RUN)
        for number in range(RESUMED)
    ]
    return spread(found)


@cache
def originals(base: Path, recipe: str) -> Path:
    """Return a folder with two checkpoints and chosen weights, as a run leaves them."""
    folder = base / "damaged" / recipe
    folder.mkdir(parents=True)
    if recipe != "synthetic":
        tiny.whole(base, recipe)
        for path in (base / "whole" / recipe / "checkpoints").glob("*.safetensors"):
            shutil.copyfile(path, folder / path.name)
        return folder
    if code := forks.run(lambda: _synthesize(folder), folder / "log"):
        raise RuntimeError(f"exit code {code}: {(folder / 'log').read_text()}")
    return folder


def _synthesize(folder: Path) -> int:
    """Write what no tiny run has: every dtype, a tensor of nothing, a single number, an empty name part, a megabyte."""
    import torch

    from resfit.training.checkpoint import save_checkpoint, write_tensors

    for step in (1, 2):
        draw = torch.Generator().manual_seed(step)
        tensors = {"large": torch.rand(250_000, generator=draw), "none": torch.zeros(0, 3), "one": torch.tensor(step)}
        for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool):
            tensors[f"a.{dtype}"] = torch.randint(0, 2, (3, 5), generator=draw).to(dtype)
        save_checkpoint(folder, step, tensors, {"step": step, "text": "ü\n" * 50})
    write_tensors(folder / "best-000000.safetensors", tensors, {"epoch": 0})
    return 0


def check(base: Path, folder: Path, item: Round) -> str:
    """Damage a file; reading it must fail, and the checkpoint before it be found."""
    file, recipe, damage = item.what
    draw = random.Random(item.key)
    if file == "resume":
        return _resumed(base, folder, damage, draw)
    for path in originals(base, recipe).glob("*.safetensors"):
        shutil.copyfile(path, folder / path.name)
    older, newest = sorted(folder.glob("step-*.safetensors"))
    (best,) = folder.glob("best-*.safetensors")
    hurt(newest if file == "checkpoint" else best, older, damage, draw)
    return _newest_is(older, newest, base, recipe) if file == "checkpoint" else _refused(best, base, recipe)


def hurt(path: Path, other: Path, damage: str, draw: random.Random) -> None:
    """Damage a file; drawn again where nothing changes, as where a block of zeros was zeros."""
    data = path.read_bytes()
    changed = data
    while changed == data:
        changed = DAMAGE[damage](data, draw, other.read_bytes())
    path.write_bytes(changed)


def content(path: Path) -> tuple[str, Any]:
    """Return the digest of a file's tensors, and its header; raises ValueError."""
    from resfit.training.checkpoint import read_tensors

    return _content(*read_tensors(path))


def _content(tensors: dict[str, Any], header: dict[str, Any]) -> tuple[str, Any]:
    import torch

    parts = [f"{name} {value.dtype} {tuple(value.shape)}".encode() for name, value in sorted(tensors.items())]
    parts += [value.reshape(-1).view(torch.uint8).numpy().tobytes() for _, value in sorted(tensors.items())]
    return tiny.digest(b"\n".join(parts)), header


def _newest_is(older: Path, newest: Path, base: Path, recipe: str) -> str:
    from resfit.training.checkpoint import load_newest

    tensors, header, damaged = load_newest(older.parent)
    found = _content(tensors, header)
    if found == content(originals(base, recipe) / newest.name) and not damaged:
        return ""  # a blank of the header became another: not one byte of what is read
    if found != content(older):
        return "neither the newest nor the one before was found"
    return "" if len(damaged) == 1 and newest.name in damaged[0] else f"passed over without a word: {damaged}"


def _refused(best: Path, base: Path, recipe: str) -> str:
    try:
        found = content(best)
    except ValueError:
        return ""
    return "" if found == content(originals(base, recipe) / best.name) else "accepted"


def _resumed(base: Path, folder: Path, damage: str, draw: random.Random) -> str:
    """Damage the newest checkpoint of a run before its last epoch, and resume it."""
    from resfit.runs import Run
    from resfit.training.checkpoint import checkpoints

    tiny.whole(base, "default")
    out, log = folder / "run", folder / "log"
    shutil.copytree(base / "whole" / "default", out)
    Run(out).update(status="running")
    older, newest = checkpoints(Run(out).checkpoints)
    if damage == OTHER_RUN:
        tiny.whole(base, "default", "--seed", 1)
        newest.write_bytes((base / "whole" / "default---seed-1" / "checkpoints" / newest.name).read_bytes())
    else:
        hurt(newest, older, damage, draw)
    if code := forks.run(lambda: tiny.go_on(base, "default", out), log):
        refused = damage == OTHER_RUN and code == 6 and "resfit: " in log.read_text()
        return "" if refused else f"exit code {code}: {log.read_text().strip().splitlines()[-1:]}"
    return tiny.lost(base, "default", out)


FIGURE = Figure("random corruptions of checkpoints and chosen weights: accepted, or no fallback", rounds, check)
