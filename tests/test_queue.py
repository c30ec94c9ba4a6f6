"""The queue for the GPU: every entry names a recipe that exists, fits a command or says how many, and has no record yet."""

import runpy
from pathlib import Path

import pytest

from resfit.recipefile import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "gpu_run.py"))
QUEUE = SCRIPT["read_queue"](ROOT / "benchmarks" / "gpu_queue.toml")


@pytest.mark.parametrize("entry", QUEUE, ids=lambda entry: f"{entry['recipe']}-{entry['seed']}")
def test_an_entry_can_run(entry):
    assert set(entry) <= {"recipe", "seed", "seeds", "minutes", "commands", "settings", "refit", "ship"}
    assert entry["recipe"] in recipe_names()
    load_recipe(entry["recipe"], entry.get("settings", []))
    assert entry["minutes"] <= 9 * entry.get("commands", 1)
    assert not SCRIPT["is_done"](
        ROOT / "results", {**entry, "settings": entry.get("settings", [])}
    )  # what has run is struck off


def test_order():
    names = [entry["recipe"] for entry in QUEUE]
    assert names[:3] == ["r1-4"] * 3  # what every later figure is compared with, n of 3
    assert [name for name in dict.fromkeys(names) if name in ("r4-lighter", "r4-deeper", "r5", "r2-final", "r3")] == [
        "r4-lighter",
        "r4-deeper",
        "r5",
        "r2-final",
        "r3",
    ]
