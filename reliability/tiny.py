"""Tiny runs of every shipped recipe, begun and continued as a person would, and what must come out the same of each."""

import contextlib
import hashlib
import importlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import forks

IMAGES, CLASSES, SIDE = 100, 3, 16  # 90 to train on: 3 steps of 32, 32 and 26
EPOCHS = 3
# what no shipped recipe has
OWN = {
    "own-average": """name = "own-average"
network = "resnet:widths=8,16:blocks_per_stage=1,1:dropout=0.1:stochastic_depth=0.2:image_size=16"
[augment.crop]
padding = 2
[mix.mixup]
probability = 0.7
[optim]
lr = 0.05
clip_norm = 5.0
sam_rho = 0.05
[schedule]
name = "plateau"
patience = 0
threshold = 0.9
[train]
epochs = 3
batch_size = 32
label_smoothing = 0.1
ema_decay = 0.9
""",
    "own-stopping": """name = "own-stopping"
network = "wrn:widths=8,16:blocks_per_stage=1,1:image_size=16"
tta = "flip"
[optim]
lr = 0.3
[freezing]
until = [0.6]
[train]
epochs = 6
batch_size = 32
early_stopping = 2
ema_decay = 0.5
""",
}


def prepare(base: Path, warm: bool = True) -> None:
    """Make images and recipes in `base`, keep cache and ledger there, and import what training imports (`warm`)."""
    os.environ["RESFIT_CACHE"], os.environ["RESFIT_STATE"] = str(base / "cache"), str(base / "state")
    (base / "whole").mkdir(parents=True, exist_ok=True)
    (base / "recipes").mkdir(exist_ok=True)
    log = base / "prepare.log"
    if forks.run(lambda: _write_images(base) or _write_recipes(base) or (_note_modules(base) if warm else 0), log):
        raise RuntimeError(log.read_text())
    if not warm:
        return
    for name in (base / "modules").read_text().split():  # 800 of torch's at the first step of a child, else
        with contextlib.suppress(Exception):  # a part of torch that is not to be imported by itself
            importlib.import_module(name)


def recipe_names(base: Path) -> list[str]:
    """Return every shipped recipe's name."""
    return sorted(path.stem for path in (base / "recipes").glob("*.toml"))


def command(*words: object) -> int:
    """Run `resfit WORDS` in this process, as `python -m resfit` does."""
    from resfit.cli import main

    return main([str(word) for word in words])


def begin(base: Path, recipe: str, out: Path, *more: object) -> int:
    """Run `resfit train` on the tiny images."""
    file = base / "recipes" / f"{recipe}.toml"
    return command("train", file, "--data", base / "images.npz", "--out", out, "--device", "cpu", *more)


def go_on(base: Path, recipe: str, out: Path, *more: object) -> int:
    """Do what a person does after a crash: resume the run, or train anew where none had begun."""
    if (out / "run.json").exists():
        return command("resume", out)
    return begin(base, recipe, out, *more)


def save_each_step() -> int:
    """Make this process write a checkpoint after each step, not only after each epoch."""
    from resfit.training import loop

    assert loop.SAVE_SECONDS > 0
    loop.SAVE_SECONDS = 0.0
    return 0


@cache
def whole(base: Path, recipe: str, *more: object) -> tuple[dict[str, str], float]:
    """Return what an uninterrupted run comes to, and its seconds; trained at the first call."""
    out = base / "whole" / "-".join([recipe, *map(str, more)])
    log = out.with_suffix(".log")
    if recipe == "r1-distill":
        whole(base, "r1-baseline")  # its teacher
    started = time.monotonic()
    if code := forks.run(lambda: begin(base, recipe, out, *more), log):
        raise RuntimeError(f"{recipe}: exit code {code}: {log.read_text()}")
    return essence(out), time.monotonic() - started


def lost(base: Path, recipe: str, out: Path, *more: object) -> str:
    """Return how a finished run differs from one that was never interrupted; an empty string where it does not."""
    try:
        mine = essence(out)
    except Exception as error:  # whatever cannot be read is a loss
        return f"cannot be read: {type(error).__name__}: {error}"
    theirs, _ = whole(base, recipe, *more)
    other = [name for name in theirs.keys() | mine.keys() if mine.get(name) != theirs.get(name)]
    left = [path.name for path in out.rglob("*.tmp")]
    return " and ".join(
        [f"differs in {', '.join(sorted(other))}"] * bool(other) + [f"leaves {', '.join(left)}"] * bool(left)
    )


def essence(folder: Path) -> dict[str, str]:
    """Return all that must come out the same of a finished run, each under a name, as text or a digest."""
    from resfit.runs import Run
    from resfit.training.checkpoint import checkpoints, read_tensors

    run = Run(folder)
    rows = [_timeless(row) for row in run.metrics]
    found = {f"row {number}": json.dumps(row) for number, row in enumerate(rows)}
    found["summary"] = json.dumps({k: v for k, v in _timeless(run.summary).items() if k != "images_per_second"})
    found |= {"status": run.info["status"], "seed": str(run.info["seed"]), "error": str(run.info.get("error"))}
    tensors, header = read_tensors(checkpoints(run.checkpoints)[-1])
    found |= {name: digest(value.numpy().tobytes()) for name, value in tensors.items()}
    found["header"] = json.dumps(_timeless(header), sort_keys=True)
    with np.load(folder / "predictions" / "val.npz") as arrays:
        found["predictions"] = digest(arrays["probs"].tobytes())
    (best,) = run.checkpoints.glob("best-*.safetensors")
    bundle = [run.bundle / name for name in ("model.safetensors", "config.json", "README.md")]
    files = (best, *bundle, run.recipe_file, folder / "split.csv")
    return found | {path.name: digest(path.read_bytes()) for path in files}


def digest(data: bytes) -> str:
    """Return a short digest."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def _timeless(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if "seconds" not in name}


def _write_images(base: Path) -> int:
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=CLASSES)
    images = np.round(digits.images[:IMAGES] * 255 / 16).astype(np.uint8)
    np.savez(base / "images.npz", images=images, labels=digits.target[:IMAGES].astype(np.int64))
    return 0


def _write_recipes(base: Path) -> int:
    from resfit.recipe import recipe_to_toml
    from resfit.recipefile import recipe_names

    for name in recipe_names():
        (base / "recipes" / f"{name}.toml").write_text(recipe_to_toml(_shrunk(name, base)))
    for name, text in OWN.items():
        (base / "recipes" / f"{name}.toml").write_text(text)
    return 0


def _note_modules(base: Path) -> int:
    """Train once, and write down what was imported for it."""
    before = set(sys.modules)
    code = begin(base, "default", base / "first")
    if code == 0:
        code = command("resume", base / "first")
    names = [name for name in sys.modules if name not in before and "__main__" not in name]
    (base / "modules").write_text("\n".join(names))
    return code


def _shrunk(name: str, base: Path) -> Any:
    """Return a shipped recipe with every technique kept, on a small network, for EPOCHS epochs."""
    from resfit.recipe import Recipe
    from resfit.recipefile import load_recipe

    recipe = load_recipe(name)
    table = recipe.model_dump(exclude={"network", "budget"})
    spec = recipe.network
    stages = min(2, len(spec.widths))
    sizes: dict[str, Any] = {"widths": (8, 16)[:stages], "blocks_per_stage": (1, 1)[:stages]}
    sizes |= {"strides": (1, 2)[:stages], "stem_width": None, "se_reduction": min(spec.se_reduction, 4)}
    table["network"] = replace(spec, **sizes, pool=0, image_size=SIDE)
    train, schedule = table["train"], table["schedule"]
    train |= {"epochs": EPOCHS, "batch_size": 32, "validate_every": min(train["validate_every"], 2)}
    schedule["warmup_epochs"] = min(schedule["warmup_epochs"], 0.5)
    schedule |= {"every_epochs": 1.0} if "every_epochs" in schedule else {}
    schedule |= {"patience": 0, "threshold": 0.9} if schedule["name"] == "plateau" else {}
    table["resizing"]["sizes"] = (8, 12)[-len(table["resizing"]["sizes"]) :] if table["resizing"]["sizes"] else ()
    table["freezing"]["until"] = table["freezing"]["until"][: stages - 1]
    table["data"]["image_size"] = None
    if table["distill"]["teacher"]:
        table["distill"]["teacher"] = str(base / "whole" / "r1-baseline")
    return Recipe(**table)
