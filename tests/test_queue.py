"""The queue for the GPU: every entry names a recipe that exists, fits a command or says how many, and has no record yet."""

import argparse
import json
import runpy
import sys
from pathlib import Path

import pytest

from resfit.recipefile import load_recipe, recipe_names

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "gpu_run.py"))
EVERY = SCRIPT["read_queue"](ROOT / "benchmarks" / "gpu_queue.toml")
QUEUE = [entry for entry in EVERY if "script" not in entry]
SCRIPTS = [entry for entry in EVERY if "script" in entry]


@pytest.mark.parametrize("entry", SCRIPTS, ids=lambda entry: entry["files"][0])
def test_a_script_can_run(entry, monkeypatch):
    assert set(entry) <= {"script", "arguments", "files", "minutes", "seed"}
    assert entry["minutes"] <= 9
    assert entry["arguments"][entry["arguments"].index("--recipe") + 1] in recipe_names()
    assert not SCRIPT["is_done"](ROOT / "results", entry)
    monkeypatch.setattr("sys.path", [str(ROOT / "benchmarks"), *sys.path])
    monkeypatch.setattr("sys.argv", ["script", "data", *entry["arguments"], "--device", "cuda"])
    assert runpy.run_path(str(ROOT / entry["script"]))["arguments"]().data == "data"


def test_a_scripts_output_is_kept_where_it_ends_well(tmp_path, monkeypatch):
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text("import json, sys; print(json.dumps(sys.argv[1:])); print('{}'); sys.exit('--fail' in sys.argv)")
    entry = {"script": str(script), "arguments": ["--n", "3"], "files": ["it.json", "more.json"], "minutes": 1}
    out.mkdir()
    options = argparse.Namespace(data="images", out=out, device="cpu", more=["--fail"])
    assert SCRIPT["run_script"](entry, options, 60)[3] == "exit 1"
    assert not SCRIPT["is_done"](out, entry)
    options.more = []
    assert SCRIPT["run_script"](entry, options, 60)[3] == "done"
    assert SCRIPT["is_done"](out, entry)
    assert json.loads((out / "it.json").read_text()) == ["images", "--n", "3", "--device", "cpu"]
    assert json.loads((out / "more.json").read_text()) == {}


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
    first = [entry.get("recipe", "a script") for entry in EVERY[:7]]
    assert first == ["r1-4"] * 3 + ["r4-lighter"] * 3 + [
        "a script"
    ]  # the first is what every later figure is compared with
    assert [name for name in dict.fromkeys(names) if name in ("r4-lighter", "r4-deeper", "r5", "r2-final", "r3")] == [
        "r4-lighter",
        "r4-deeper",
        "r5",
        "r2-final",
        "r3",
    ]
