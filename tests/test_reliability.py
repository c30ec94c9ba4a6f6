"""The proof that a run is never lost, in its shortest form: a few rounds of each check, and some planted faults."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKS = ("kills", "calls", "errors", "powercuts", "corruptions", "owners")


def visit(folder: Path, share: str, *checks: str) -> dict[str, dict[str, object]]:
    command = [sys.executable, ROOT / "reliability" / "run.py", "--share", share, "--work", folder / "work"]
    done = subprocess.run([*command, "--only", *checks], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert done.stdout, done.stderr
    return {figure["check"]: figure for figure in json.loads(done.stdout)["figures"]}


@pytest.fixture(scope="module")
def figures(need, tmp_path_factory) -> dict[str, dict[str, object]]:
    need("strace")
    return visit(tmp_path_factory.mktemp("reliability"), "0.003", *CHECKS)


class TestChecks:
    @pytest.mark.parametrize("check", CHECKS)
    def test_a_run_is_never_lost(self, check, figures):
        assert figures[check]["n"] >= 2
        assert figures[check]["failures"] == 0, figures[check]["problems"]


class TestFaults:  # a class of its own, for another of pytest's workers
    def test_planted_ones_are_caught(self, need, tmp_path):
        """Others at each commit."""
        need("strace")
        figure = visit(tmp_path, "0.08", "faults")["faults"]
        assert figure["n"] == 3
        assert figure["failures"] == 0, figure["problems"]


def test_table_says_what_was_measured_and_what_not(tmp_path):
    tables = runpy.run_path(str(ROOT / "benchmarks" / "reliability_tables.py"))["reliability_tables"]
    assert "Not measured yet" in tables(tmp_path)["figures"]
    figure = {"name": "a", "n": 300, "failures": 0, "classes": 20, "all": {"n": 3000, "classes": 20}}
    figure |= {"source": "s", "commits": ["c"]}
    bad = figure | {"name": "b", "failures": 2}
    value = {"figures": [figure, bad], "device": "d", "data": "x", "command": "python reliability/run.py --share 0.1"}
    (tmp_path / "reliability.json").write_text(json.dumps(value))
    lines = tables(tmp_path)["figures"].splitlines()
    assert lines[2] == "| a | 0 of 300 (< 0.01) | 20 | 3,000, 20 | s, c |"
    assert "| b | 2 of 300 | 20 |" in lines[3]
