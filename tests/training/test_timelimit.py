"""Epochs planned by a clock: the arithmetic against brute force, and runs whose plan changes on the way."""

import json

import pytest

from resfit.cli import main
from resfit.errors import GateError, UsageError
from resfit.recipefile import load_recipe
from resfit.runs import Run
from resfit.training import timelimit
from resfit.training.checkpoint import checkpoints, load_newest
from resfit.training.launch import resume, train
from resfit.training.timelimit import TimeLimit, measure, plan_epochs, replan, train_seconds, with_epochs
from runfiles import Killed, essence

RESIZED = ["resizing={sizes=[8,12], until=[0.3,0.7]}"]
SECONDS = {8: 0.001, 12: 0.002, 16: 0.004}


def of_each_step(epochs, steps, batch, done=0):
    """Add up the seconds of every step, by the size that its progress has."""
    total = 0.0
    for step in range(done * steps, epochs * steps):
        progress = step / (epochs * steps)
        total += batch * SECONDS[8 if progress < 0.3 else 12 if progress < 0.7 else 16]
    return total


@pytest.mark.parametrize(("epochs", "done"), [(1, 0), (7, 0), (7, 1), (7, 3), (20, 13), (20, 19), (20, 20)])
def test_seconds_are_those_of_every_step(epochs, done, tiny_recipe):
    recipe = load_recipe(tiny_recipe, RESIZED)
    steps = 1000
    assert train_seconds(recipe, SECONDS, steps * 4, epochs, done) == pytest.approx(
        of_each_step(epochs, steps, 4, done), abs=3 * 4 * 0.004
    )


@pytest.mark.parametrize("every", [1, 3])
def test_the_most_epochs_that_fit(every, tiny_recipe):
    recipe = load_recipe(tiny_recipe, [*RESIZED, f"train.validate_every={every}"])

    def total(epochs):
        looks = sum((e + 1) % every == 0 or e + 1 == epochs for e in range(epochs)) + 1
        return of_each_step(epochs, 40, 25) + looks * 100 * 0.3 * 0.004

    for seconds in (1.0, 3.01, 30.01, 100.01):
        epochs = plan_epochs(recipe, SECONDS, (1000, 100), seconds, 60)
        assert epochs == sum(total(n) <= seconds for n in range(1, 61))
    assert plan_epochs(recipe, SECONDS, (1000, 100), 1e9, 60) == 60


def test_a_warm_up_shrinks_with_the_epochs(tiny_recipe):
    recipe = load_recipe(tiny_recipe)
    assert with_epochs(recipe, None) is recipe
    assert with_epochs(recipe, 100).schedule.warmup_epochs == 0.5
    assert with_epochs(recipe, 1).schedule.warmup_epochs == 0.2
    assert with_epochs(recipe, 1).train.epochs == 1


def rows(epochs, train_seconds, val_seconds=0.5):
    return [{"epoch": e, "train_seconds": train_seconds, "val_seconds": val_seconds} for e in range(epochs)]


@pytest.mark.parametrize(
    ("done", "seconds", "epochs"),
    [
        (5, 10.0, 20),  # as planned
        (5, 20.0, 10),  # half as fast
        (5, 5.0, 38),  # twice as fast
        (15, 5.0, 20),  # so late it is not made longer
        (10, 22.5, 10),  # the time is over
    ],
)
def test_a_plan_follows_what_epochs_take(done, seconds, epochs, tiny_recipe):
    recipe = load_recipe(tiny_recipe)
    kept = {"seconds": 215.0, "before": 2.0, "most": 300, "image_seconds": {"16": 0.01}}
    took = rows(done, seconds)
    found = replan(recipe, kept, (1000, 50), took, 2.0 + done * (seconds + 0.5), 20)
    left = 215.0 - 2.0 - done * (seconds + 0.5) - 0.5  # one more look, at the end
    assert found == epochs
    if epochs != 20:
        assert epochs == max(done, done + int(left / (seconds + 0.5)))


def test_one_more_epoch_where_nothing_has_been_looked_at(tiny_recipe):
    recipe = load_recipe(tiny_recipe, ["train.validate_every=20"])
    kept = {"seconds": 10.0, "before": 0.0, "most": 300, "image_seconds": {"16": 0.01}}
    took = [{"epoch": 0, "train_seconds": 30.0}]
    assert replan(recipe, kept, (1000, 50), took, 30.0, 20) == 2
    assert replan(recipe, kept, (1000, 0), took, 30.0, 20) == 1  # refit: there is nothing to look at


def test_every_size_is_measured(tiny_recipe):
    import torch

    mean = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.3,0.3,0.3]"]
    found = measure(load_recipe(tiny_recipe, [*RESIZED, *mean]), torch.device("cpu"), 1.0)
    assert list(found) == [8, 12, 16]
    assert min(found.values()) > 0


def scripted(monkeypatch, plans):
    """Have the plan after so many epochs be another one, whatever the clock says."""

    def replan(recipe, kept, images, rows, spent, planned):
        return plans.get(len(rows), planned)

    monkeypatch.setattr(timelimit, "replan", replan)
    monkeypatch.setattr(timelimit, "plan_epochs", lambda *_: 6)
    monkeypatch.setattr(timelimit, "MEASURED", (0.0, 0.0, 0.0))


def test_a_run_whose_plan_changes_has_that_plans_course(tiny_recipe, digits_npz, tmp_path, monkeypatch, capsys):
    scripted(monkeypatch, {2: 4})
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=60.0)
    assert "4 epochs, not 6, keep the time limit" in capsys.readouterr().err
    assert [row["epoch"] for row in run.metrics] == [0, 1, 2, 3]
    assert run.summary["epochs"] == 4
    assert run.recipe.train.epochs == 6  # what was planned first, and can be trained again
    assert load_newest(run.checkpoints)[1]["epochs"] == 4
    four = train(tiny_recipe, digits_npz, tmp_path / "four", device="cpu", settings=["train.epochs=4"])
    assert run.metrics[3]["lr"] == pytest.approx(four.metrics[3]["lr"])
    assert run.info["time_limit"]["seconds"] == 60.0
    assert 0 < run.info["time_limit"]["before"] < 60


@pytest.mark.parametrize("when", [3, 8, 9, 13])  # of 4 steps an epoch, the plan changing after the second
def test_killed_it_goes_on_by_the_plan_that_it_had(when, tiny_recipe, digits_npz, tmp_path, monkeypatch):
    scripted(monkeypatch, {2: 4})
    whole = train(tiny_recipe, digits_npz, tmp_path / "whole", device="cpu", time_limit=60.0)

    def stop(self, state, steps_per_epoch, seconds):
        if state.step == when:
            raise Killed

    with monkeypatch.context() as inside:
        inside.setattr("resfit.training.timelimit.Deadline.step", stop, raising=False)
        with pytest.raises(Killed):
            train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=60.0)
    assert essence(resume(tmp_path / "run")) == essence(whole)


def test_the_end_of_the_time_is_the_end_of_training(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    scripted(monkeypatch, {3: 3})
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=60.0, refit=True)
    assert run.info["status"] == "finished"
    assert run.summary["epochs"] == 3
    assert run.summary["epoch"] == 2
    assert len(checkpoints(run.checkpoints)) >= 2


def test_too_short_a_time_is_refused_before_a_folder_is_made(tiny_recipe, digits_npz, tmp_path, capsys):
    words = ["train", tiny_recipe, "--data", digits_npz, "--out", tmp_path / "run", "--device", "cpu"]
    assert main([*map(str, words), "--time-limit", "10ms"]) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("resfit: ")]
    assert "time limit: 0.0 s: one epoch of 240 images, and val, take about" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_is_a_time(seconds):
    with pytest.raises(UsageError, match=r"time_limit: .* is no time"):
        TimeLimit(seconds)


def test_a_real_clock_is_kept_on_record(tiny_recipe, digits_npz, tmp_path):
    """Nothing is planned by hand here: whatever the machine, the run ends, and says what it was planned by."""
    try:
        run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=6.0)
    except GateError:
        pytest.fail("one epoch of 240 images of 16 pixels did not fit into six seconds")
    kept = json.loads((run.folder / "run.json").read_text())["time_limit"]
    assert list(kept["image_seconds"]) == ["16"]
    assert len(run.metrics) == run.summary["epochs"] <= kept["most"] == 300
    assert Run(run.folder).info["status"] == "finished"
