"""The benchmarks that only a GPU can run: their test against scipy's, their way with the peer's script, on a stand-in."""

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
STAND_IN = """
import sys, torch
def print_training_details(variables, is_final_entry): pass
def main(run, model):
    total_time_seconds, val_acc, tta_val_acc = 2.5, 0.25, 0.5 + model
    if run == "warmup": tta_val_acc = 0.0
    print("a table")
    print_training_details(locals(), is_final_entry=True)
    return tta_val_acc
if __name__ == "__main__":
    model = 0.125
    print("set up")
    accs = torch.tensor([main(run, model) for run in range(200)])
    raise AssertionError("this is after the trials")
"""


@pytest.fixture(scope="module")
def speed():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return runpy.run_path(str(ROOT / "benchmarks" / "gpu_speed.py"))
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(("n", "m", "shift"), [(2, 2, 0.0), (5, 9, 0.3), (100, 100, -0.2), (30, 4, 1.5)])
def test_welch_is_scipys(speed, n, m, shift):
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(n)
    left, right = draw.normal(shift, 1, n).tolist(), draw.normal(0, 2, m).tolist()
    found = speed["welch"](left, right)
    for key, alternative in (("p_above", "greater"), ("p_below", "less")):
        expected = stats.ttest_ind(left, right, equal_var=False, alternative=alternative)
        assert found[key] == pytest.approx(expected.pvalue, abs=1e-9)
        assert found["t"] == pytest.approx(expected.statistic)
    assert speed["welch"]([0.9], right) is None


def test_the_peer_runs_its_own_set_up_and_one_trial_a_line(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(STAND_IN)
    words = [sys.executable, str(ROOT / "benchmarks" / "peer_airbench.py"), str(script)]
    done = subprocess.run(words, input="warmup\n3\n", capture_output=True, text=True, check=True)
    first, warm, trial = map(json.loads, done.stdout.splitlines())
    assert first["set_up_seconds"] > 0
    assert warm == {"seconds": 2.5, "accuracy": 0.25, "accuracy_tta": 0.0}
    assert trial == {"seconds": 2.5, "accuracy": 0.25, "accuracy_tta": 0.625}
    assert "a table" in done.stderr


def test_what_the_gpu_benchmarks_print_becomes_rows_of_the_tables(speed, tmp_path, capsys):
    """The report on trials whose figures are known, cut into files as gpu_run.py does, read by both tables."""
    from resfit.recipefile import load_recipe

    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        gpu_run = runpy.run_path(str(ROOT / "benchmarks" / "gpu_run.py"))
        performance = runpy.run_path(str(ROOT / "benchmarks" / "performance_tables.py"))
        tables = runpy.run_path(str(ROOT / "benchmarks" / "tables.py"))
    finally:
        sys.path.pop(0)
    (entry,) = [e for e in gpu_run["read_queue"](ROOT / "benchmarks" / "gpu_queue.toml") if "speed-94" in str(e)]
    times = {"train_seconds": 1.0, "fit_seconds": 0.1, "tta_seconds": 0.2, "compile_seconds": 5.0}
    options = argparse.Namespace(peer=Path("airbench94_muon.py"), n=2)
    for accuracy, met in ((0.95, "yes"), (0.93, "no: less accurate than the peer")):
        mine = [{"seconds": 2.0, "accuracy": accuracy - 0.01, "accuracy_tta": accuracy, **times}] * 3
        peers = [{"seconds": 4.0, "accuracy": 0.935, "accuracy_tta": 0.94}] * 3
        speed["report"](options, load_recipe("speed-94"), torch.device("cpu"), mine, peers, 1.0, 50_000)
        found = gpu_run["objects"](capsys.readouterr().out)
        for name, value in zip(entry["files"], found, strict=True):
            (tmp_path / name).write_text(json.dumps(value))
        (row,) = [
            line
            for line in performance["rows_table"](tmp_path, performance["ROWS"]).splitlines()
            if "gpu_speed_94" in line
        ]
        assert f"| 0.5 | ratio at most 0.8 | {met} |" in row
        assert len(tables["table"](tmp_path).splitlines()) == 2 + len(entry["files"])
