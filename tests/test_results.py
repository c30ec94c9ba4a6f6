"""Committed results: each says what it must, and the tables of README, claims.md and defects.md are made from them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULTS = sorted((ROOT / "results").rglob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_how_it_was_obtained(path):
    value = json.loads(path.read_text())
    assert {"figure", "goal", "n", "spread", "peer", "data", "device", "commit", "command"} <= value.keys()
    assert "value" in value or "ratio" in value
    assert value["n"] >= 1
    words = value["command"].split()
    if words[:2] != ["resfit", "reproduce"]:
        script = next(word for word in words if word.endswith(".py"))
        assert (ROOT / script).is_file()
    if path.parent.name == "reproduce":
        assert value["n"] == len(value["runs"])
        assert {
            "recipe",
            "study",
            "settings",
            "epochs",
            "train_images",
            "weights",
            "tta_views",
            "torch",
        } <= value.keys()


def test_there_are_results_and_no_table_is_stale():
    assert RESULTS
    check = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    assert subprocess.run(check).returncode == 0, "run: python benchmarks/tables.py"
