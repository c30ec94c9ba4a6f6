"""The record of a reproduction: results/reproduce/<recipe>[-refit][-<study>].json, one file a study.

A study is a recipe with settings changed: "full" is none, "1-epoch-16px" a shortened one. No torch.
"""

import hashlib
import json
import re
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from resfit import durable
from resfit.data.cifar import is_original
from resfit.errors import UsageError
from resfit.models.spec import format_spec
from resfit.published.claims import load_reports
from resfit.recipe import Recipe
from resfit.recipefile import load_recipe, setting_order
from resfit.runs import Run, open_run

Result = dict[str, Any]

# ImageSet.fingerprint of the test split of cifar10-jpeg: of its files' bytes, labels and class names, so that folder and
# archive agree. Got by open_source("/work/cifar").list_split("test") and read_keys, on the files of
# cifar10-jpeg.tar.gz, sha256 45b041e8...34d4db.
JPEG_TEST = "ef752fbfffeaf31e"
SAME = (
    "recipe",
    "study",
    "settings",
    "refit",
    "recipe_digest",
    "epochs",
    "image_size",
    "device_kind",
    "train_fingerprint",
)

SAME_WORDS = {
    "train_fingerprint": "set of training images",
    "recipe_digest": "version of the recipe",
    "test_fingerprint": "test set",
}


def normal(settings: Sequence[str]) -> list[str]:
    """Return settings `key=value` in one order and spelling, so that 0.10 and 0.1 are the same.

    What chooses a technique or network comes first: a recipe forgets the parameters of another one. Where a teacher lies is
    a place, and no setting.
    """

    def spell(text: str) -> str:
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word
        plain = value if isinstance(value, str) else text if isinstance(value, dict) else json.dumps(value)
        return plain.strip()

    last = {key.strip(): spell(text) for key, _, text in (setting.partition("=") for setting in settings)}
    last.pop("distill.teacher", None)
    keys = sorted(last, key=lambda key: (setting_order(key), key))
    return [f"{key}={last[key]}" for key in keys]


def study_name(settings: Sequence[str]) -> str:
    """Return the name of a recipe's study, fit for a file name: `full`, `1-epoch-16px`, `optim.lr-0.2`."""
    text = re.sub(r"at (\d+) px", r"\1px", study_text(settings))
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-") or "full"


def study_text(settings: Sequence[str]) -> str:
    """Return what a study changes, in words: `1 epoch at 16 px, optim.lr=0.2`; empty where it is the recipe itself."""
    found = dict(setting.split("=", 1) for setting in normal(settings))
    epochs, side = found.pop("train.epochs", None), found.pop("data.image_size", None)
    parts = [f"{epochs} epoch{'s' * (epochs != '1')}"] if epochs else []
    parts += [f"at {side} px"] if side else []
    return ", ".join([*([" ".join(parts)] if parts else []), *(f"{key}={value}" for key, value in found.items())])


def result_file(folder: Path, recipe: str, settings: Sequence[str], refit: bool) -> Path:
    """Return where the result of a study lies under a results folder."""
    study = study_name(settings)
    name = "-".join([recipe, *(["refit"] if refit else []), *([study] if study != "full" else [])])
    return folder / "reproduce" / f"{name}.json"


def add_result(
    folder: str | Path, run: str | Path, recipe: str, settings: Sequence[str] = (), command: str | None = None
) -> Path:
    """Add a finished and tested run to the record of its recipe under a results folder, by seed, and return the file.

    `settings` are the --set list it was trained with. Raises UsageError when the run is not of that recipe, was not
    tested, or differs from the record's other runs in data, settings, epochs or kind of device.
    """
    done = open_run(run)
    settings = normal(settings)
    if not is_trained_by(done.recipe, load_recipe(recipe, settings)):
        raise UsageError(
            f"{done.folder}: was not trained by {shown(recipe, settings)}. Name its own recipe and settings."
        )
    summary, info, receipt = done.summary, done.info, read_receipt(done)
    file = result_file(Path(folder), recipe, settings, info["refit"])
    entry = run_entry(done)
    common = {
        "recipe": recipe,
        "study": study_name(settings),
        "settings": settings,
        "refit": info["refit"],
        "recipe_digest": recipe_digest(load_recipe(recipe, settings)),
        "epochs": done.recipe.train.epochs,
        "image_size": done.recipe.network.image_size,
        "device_kind": info["device_type"].partition(":")[0],
        "train_fingerprint": info["data"]["train"],
        "test_fingerprint": receipt["fingerprint"],
        "params": summary["params"],
        "macs": summary["macs"],
        "train_images": summary["train_images"],
        "weights": summary["weights"],
        "tta_views": receipt["tta_views"],
        "torch": info["versions"]["torch"],
    }
    before = refuse_mixing(file, common)
    runs = {row["seed"]: row for row in before["runs"]} if before else {}
    rows = [row for _, row in sorted((runs | {entry["seed"]: entry}).items())]
    verified = before is not None and before["data"] == "cifar10"  # of another form of the same test set
    data = "cifar10" if verified else data_name(receipt["fingerprint"], info["source"])
    write_result(file, summarise(common, rows, data, command))
    return file


def is_trained_by(trained: Recipe, named: Recipe) -> bool:
    """Return whether a resolved recipe is `named`, but for what the data filled in and the budget."""
    filled = {key for key in ("mean", "std", "image_size") if getattr(named.data, key) is None}
    same = _settled(trained, filled) == _settled(named, filled)
    return same and trained.network == replace(named.network, classes=trained.network.classes)


def recipe_digest(recipe: Recipe) -> str:
    """Return a hash of all that a recipe says of training: a record made by another version of it no longer speaks for it."""
    text = json.dumps([format_spec(recipe.network), _settled(recipe, set())], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _settled(recipe: Recipe, filled: set[str]) -> dict[str, Any]:
    """Return a recipe's settings that are not at their default, less name, network, budget, and what the data `filled` in."""
    rest: Any = {"name": True, "network": True, "budget": True, "data": filled, "distill": {"teacher"}}
    return recipe.model_dump(mode="json", exclude=rest, exclude_defaults=True)


def run_entry(run: Run) -> dict[str, Any]:
    """Return what a record keeps of one finished and tested run. Raises UsageError where it is not."""
    summary, info, receipt, rows = run.summary, run.info, read_receipt(run), run.metrics
    val = summary["val"]
    keys = ("train_loss", "train_accuracy", "val_accuracy", "val_nll")
    return {
        "seed": summary["seed"],
        "test_accuracy": round(receipt["accuracy"], 4),
        "test_nll": round(receipt["nll"], 4),
        "val_accuracy": round(val["accuracy"], 4) if val else None,
        "epochs": summary["epochs"],
        "train_seconds": round(summary["train_seconds"], 1),
        "device": info["device"],
        "commit": info["commit"],
        "curve": {key: [round(row[key], 4) for row in rows] if key in rows[0] else None for key in keys},
    }


def read_receipt(run: Run) -> dict[str, Any]:
    """Return the receipt of a run's test; raises UsageError where there is none."""
    if not run.receipt_file.exists():
        raise UsageError(f"{run.folder}: has not been tested. Run `resfit test {run.folder}` first.")
    receipt: dict[str, Any] = json.loads(run.receipt_file.read_text())
    return receipt


def refuse_mixing(file: Path, common: dict[str, Any]) -> Result | None:
    """Return the record in `file`, or None; raises UsageError where what `common` says differs from what it holds."""
    if not file.exists():
        return None
    before = read_result(file)
    for key in [key for key in (*SAME, "test_fingerprint") if key in common]:
        if before[key] != common[key]:
            what = SAME_WORDS.get(key, key.replace("_", " "))
            raise UsageError(
                f"{file}: holds runs of another {what} ({before[key]}, not {common[key]}). Choose another --results."
            )
    return before


def summarise(common: dict[str, Any], rows: list[dict[str, Any]], data: str, command: str | None) -> Result:
    """Return the whole record: the keys that every result has, then those of a reproduction, then its runs."""
    recipe, settings = common["recipe"], common["settings"]
    scores = [row["test_accuracy"] for row in rows]
    goal = claimed_accuracy(recipe) if common["study"] == "full" else None
    refit = " --refit" if common["refit"] else ""
    words = f"{shown(recipe, settings)}{refit} --data {'cifar10' if data == 'cifar10' else 'PATH'} --seeds {len(rows)}"
    changed = study_text(settings)
    return {
        "figure": f"test accuracy of `{recipe}`{', refit on train + val' if refit else ''}{': ' * bool(changed)}{changed}",
        "value": round(mean(scores), 4),
        "goal": goal,
        "goal_is": "the report's claim" if goal is not None else None,
        "n": len(rows),
        "spread": [min(scores), max(scores)],
        "peer": None,
        "data": data,
        "device": "; ".join(sorted({row["device"] for row in rows})),
        "commit": ", ".join(sorted({row["commit"] or "unknown" for row in rows})),
        "command": command or f"resfit reproduce {words}",
        **common,
        "runs": rows,
    }


def claimed_accuracy(recipe: str) -> float | None:
    """Return the test accuracy that a report prints for a recipe, as a fraction."""
    claims = [c for report in load_reports() for c in report.claim if (c.recipe, c.kind) == (recipe, "test-accuracy")]
    return float(claims[0].figure / 100) if claims else None


def shown(recipe: str, settings: Sequence[str]) -> str:
    """Return a recipe and its settings as one types them."""
    return " ".join([recipe, *(f"--set {shlex.quote(setting)}" for setting in settings)])


def data_name(fingerprint: str, source: str | None) -> str:
    """Return what a test set is called: `cifar10` or `cifar10-jpeg` if its content says so, else after its source."""
    if fingerprint == JPEG_TEST:
        return "cifar10-jpeg"
    if source is None:
        return "arrays in memory"
    if is_original(source):
        return "cifar10"
    name = Path(source).name
    return f"{name} (unverified)" if name.startswith("cifar") else name


def write_result(file: Path, result: Result) -> None:
    """Write a record as JSON, a list of numbers on one line."""
    text = json.dumps(result, indent=2, allow_nan=False)
    durable.write_text(file, re.sub(r'\[[^][{}"]*\]', lambda found: " ".join(found[0].split()), text) + "\n")


def read_result(file: Path) -> Result:
    """Return the record in a file. Raises UsageError where it is none."""
    try:
        value: Result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read as JSON ({error}). Remove it, or restore it.") from error
    if not isinstance(value, dict) or not {*SAME, "data", "runs", "n"} <= value.keys():
        raise UsageError(f"{file}: is no record of a reproduction. Move it elsewhere.")
    return value


def read_results(folder: str | Path | None = None) -> list[Result]:
    """Return every record under a results folder: the one given, else ./results, else what resfit ships.

    Each has the key `file`. Raises UsageError for a given folder without records' folder `reproduce`.
    """
    return [read_result(path) | {"file": str(path)} for path in sorted(find_folder(folder).glob("*.json"))]


def find_folder(folder: str | Path | None) -> Path:
    """Return the folder of records; see `read_results`."""
    if folder is not None:
        if not (Path(folder) / "reproduce").is_dir():
            raise UsageError(f"--results {folder}: has no folder `reproduce`. Name what `resfit reproduce` wrote to.")
        return Path(folder) / "reproduce"
    package = Path(__file__).parents[1]
    checkout = package.parents[1]
    places = [Path("results"), *([checkout / "results"] if (checkout / "pyproject.toml").is_file() else [])]
    found = [place / "reproduce" for place in (*places, package / "results") if (place / "reproduce").is_dir()]
    return found[0] if found else package / "results" / "reproduce"
