"""The bench: what binds, by hand; and a run whose shares follow from its own rates and the golden counts."""

import json

import pytest
import torch

from resfit import bench
from resfit.bench import run_bench, what_binds
from resfit.cli import main


@pytest.mark.parametrize(
    ("compute", "memory", "augmentation", "binds"),
    [
        (0.9, 0.2, 0.3, "augmentation"),
        (0.6, 0.55, 0.2, "compute"),
        (0.5, 0.7, 0.0, "memory"),
        (0.49, 0.4, 0.0, "overhead"),
        (1.3, 1.2, 0.0, "compute"),
    ],
)
def test_what_binds(compute, memory, augmentation, binds):
    assert what_binds(compute, memory, augmentation) == binds
    assert binds in bench.TRY


def test_shares_are_of_the_machines_rates(capsys):
    assert main(["bench", "resnet-8", "--seconds", "1", "--device", "cpu", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    network = value["networks"][0]
    assert (network["params"], network["macs"]) == (78_042, 12_501_632)  # tests/golden/counts.json
    for kind, operations in (("training", 6), ("prediction", 2)):
        row = network[kind]
        gflops = operations * 12_501_632 * row["images_per_second"] / 1e9
        assert row["gflops"] == pytest.approx(gflops, abs=0.1)
        assert row["share_of_matrix_rate"] == pytest.approx(
            gflops / value["matrix_gflops"]["float32"], rel=0.02, abs=0.001
        )
        assert row["share_of_memory_rate"] > 0
    assert value["threads"] == torch.get_num_threads()


def test_the_rates_are_of_the_work_done(monkeypatch):
    """A clock that each call moves by a known time gives that call's rate, whatever the plan."""
    now = 0.0

    def work():
        nonlocal now
        now += 0.125

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now)
    for seconds in (0.01, 1.0, 10.0):
        assert bench._per_second(work, torch.device("cpu"), seconds) == 8


def test_what_it_prints(capsys):
    assert main(["bench", "resnet-8", "--seconds", "0.5", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "GFLOP/s" in out
    assert out.count("resnet-8") == 3
    assert run_bench(["resnet-8"], "cpu", 0.1)["networks"][0]["batch_size"] in (8, 16, 32, 64, 128)
