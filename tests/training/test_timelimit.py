"""Epochs planned by a clock: the arithmetic against brute force, and runs whose plan changes on the way."""

import json

import pytest

from resfit.cli import main
from resfit.errors import GateError, UsageError
from resfit.recipefile import load_recipe
from resfit.reporting.facts import read_groups
from resfit.reporting.sections import facts_rows, train_command
from resfit.runs import Run, open_run
from resfit.training import pace, timelimit
from resfit.training.checkpoint import checkpoints, load_newest
from resfit.training.launch import resume, train
from resfit.training.pace import measure, measure_look, train_seconds
from resfit.training.timelimit import Standing, TimeLimit, plan_epochs, replan, with_epochs
from runfiles import essence, train_killed

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
    epoch = of_each_step(1, 1000, 1)

    def total(parts):
        last = -(-parts // 100)
        looks = sum((e + 1) % every == 0 or e + 1 == last for e in range(last)) + 1
        return parts / 100 * epoch + looks * 0.12

    for seconds in (1.0, 3.01, 30.01, 100.01):
        epochs = plan_epochs(recipe, SECONDS, 0.12, 1000, seconds, 60)
        fitting = [parts for parts in range(100, 6001) if total(parts) <= seconds]
        assert epochs == pytest.approx(len(fitting) and fitting[-1] / 100)
    assert plan_epochs(recipe, SECONDS, 0.12, 1000, 1e9, 60) == 60


def test_a_warm_up_shrinks_with_the_epochs(tiny_recipe):
    recipe = load_recipe(tiny_recipe)
    assert with_epochs(recipe, None) is recipe
    assert with_epochs(recipe, 100).schedule.warmup_epochs == 0.5
    assert with_epochs(recipe, 1).schedule.warmup_epochs == 0.2
    assert with_epochs(recipe, 1).train.epochs == 1


KEPT = {"seconds": 200.0, "most": 300, "image_seconds": {"16": 0.01}}  # an epoch of 1,000 images: 10 s


@pytest.mark.parametrize(
    ("done", "spent", "slower", "epochs"),
    [
        (5.0, 47.0, 1.0, 20),  # 196 s in all: as planned
        (5.0, 44.5, 1.0, 20),  # less than a fiftieth too short
        (5.0, 49.5, 1.0, 20),  # or too long
        (5.0, 50.5, 1.0, 19.55),
        (5.0, 55.0, 1.0, 19.1),
        (5.0, 47.0, 2.0, 12.45),
        (5.0, 47.0, 0.5, 34.8),
        (14.5, 190.0, 1.0, 15.1),
        (14.5, 201.0, 1.0, 14.5),  # the time is over
        (14 + 1 / 3, 201.0, 1.0, 14.34),  # no step is taken back
    ],
)
def test_a_plan_follows_what_epochs_take(done, spent, slower, epochs, tiny_recipe):
    at = Standing(done, done, spent, slower, look=0.0, besides=0.0)
    found = replan(load_recipe(tiny_recipe), KEPT, 1000, at, 20)
    assert found == pytest.approx(epochs, abs=0.011)
    assert found == round(found, 2) >= done


@pytest.mark.parametrize("done", [2.0, 2.25, 5.9])
def test_no_longer_plan_would_keep_the_limit(done, tiny_recipe):
    """Brute force: epochs, looks after every second one and at the end, and what an epoch costs besides."""
    recipe = load_recipe(tiny_recipe, ["train.validate_every=2"])
    at = Standing(done, done, 50.0, 1.3, look=4.0, besides=0.7)

    def total(parts):
        ends = [e for e in range(1, 400) if e > done and e < parts / 100] + [-(-parts // 100)]
        looks = sum(e % 2 == 0 or e == ends[-1] for e in ends)
        return 50.0 + (parts / 100 - done) * 13.0 + 4.0 * (looks + 1) + 0.7 * len(ends)

    found = replan(recipe, KEPT, 1000, at, 20)
    fitting = [parts for parts in range(round(done * 100) + 1, 4000) if total(parts) <= 196.0]
    assert found == fitting[-1] / 100


def test_every_size_is_measured(tiny_recipe):
    import torch

    mean = ["data.mean=[0.5,0.5,0.5]", "data.std=[0.3,0.3,0.3]"]
    found = measure(load_recipe(tiny_recipe, [*RESIZED, *mean]), torch.device("cpu"), 1.0)
    assert list(found) == [8, 12, 16]
    assert min(found.values()) > 0
    plain, six = (load_recipe(tiny_recipe, [*mean, f"tta={tta}"]) for tta in ("none", "flip-shift"))
    assert measure_look(six, torch.device("cpu"), 1.0) > measure_look(plain, torch.device("cpu"), 1.0) > 0


def scripted(monkeypatch, plans):
    """Have the plan after so many epochs be another one, whatever the clock says."""

    def replan(recipe, kept, train, at, planned):
        return plans.get(at.epochs, planned)

    monkeypatch.setattr(timelimit, "replan", replan)
    monkeypatch.setattr(timelimit, "plan_epochs", lambda *_: 6)
    monkeypatch.setattr(pace, "MEASURED", (0.0, 0.0, 0.0))
    monkeypatch.setattr(timelimit, "LOOK", 0.0)


@pytest.mark.parametrize(("plans", "epochs"), [({2: 4}, 4), ({1.25: 5, 3.5: 3.75}, 3.75), ({5.75: 6.5}, 6.5)])
def test_a_run_whose_plan_changes_has_that_plans_course(
    plans, epochs, tiny_recipe, digits_npz, tmp_path, monkeypatch, capsys
):
    scripted(monkeypatch, plans)
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=60.0)
    assert f"{epochs} epochs, not " in capsys.readouterr().err
    rows = -(-int(4 * epochs) // 4)
    assert [row["epoch"] for row in run.metrics] == list(range(rows))
    assert run.metrics[-1]["step"] == 4 * epochs
    assert run.summary["epochs"] == rows
    assert run.recipe.train.epochs == 6  # what was planned first, and can be trained again
    assert load_newest(run.checkpoints)[1]["epochs"] == epochs
    same = train(tiny_recipe, digits_npz, tmp_path / "same", device="cpu", settings=[f"train.epochs={epochs}"])
    assert run.metrics[-1]["lr"] == pytest.approx(same.metrics[-1]["lr"])
    assert run.info["time_limit"]["seconds"] == 60.0
    assert 0 < run.info["time_limit"]["before"] < 60
    assert run.summary["time_limit"] == {"seconds": 60.0, "epochs": epochs}
    card = (run.bundle / "README.md").read_text()
    assert f"| time limit | 60.0 s: {epochs} epochs in the end |" in card
    assert f"--set train.epochs={epochs}`:" in card
    (group,) = read_groups([run.folder])
    (facts,) = group.runs
    assert ("time limit", f"60.0 s: {epochs} epochs in the end") in facts_rows(facts)
    words = train_command(facts).split()[1:]  # without "resfit"
    assert main([*words, "--out", str(tmp_path / "said"), "--device", "cpu"]) == 0
    assert open_run(tmp_path / "said").metrics[-1]["step"] == 4 * epochs


@pytest.mark.parametrize("when", [3, 8, 9, 10, 11, 13])  # of 4 steps an epoch, the plan changing after 8 and after 10
def test_killed_it_goes_on_by_the_plan_that_it_had(when, tiny_recipe, digits_npz, tmp_path, monkeypatch):
    scripted(monkeypatch, {2: 5, 2.5: 3.75})
    whole = train(tiny_recipe, digits_npz, tmp_path / "whole", device="cpu", time_limit=60.0)
    train_killed(monkeypatch, when, tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=60.0)
    assert essence(resume(tmp_path / "run")) == essence(whole)


@pytest.mark.parametrize(("after", "epochs"), [(3, 3), (2.4, 2.4)])  # of 5 steps each
def test_the_end_of_the_time_is_the_end_of_training(after, epochs, tiny_recipe, digits_npz, tmp_path, monkeypatch):
    scripted(monkeypatch, {after: epochs})
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=60.0, refit=True)
    assert run.info["status"] == "finished"
    assert run.summary["epochs"] == 3
    assert run.summary["epoch"] == 2
    assert len(checkpoints(run.checkpoints)) >= 2


def test_what_has_not_been_looked_at_is_not_the_end(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    """The time is over after an epoch without a look at val: one more step ends the training with one."""
    monkeypatch.setattr(timelimit, "replan", lambda recipe, kept, train, at, planned: min(at.least, planned))
    monkeypatch.setattr(timelimit, "plan_epochs", lambda *_: 6)
    monkeypatch.setattr(timelimit, "LOOK", 0.0)
    monkeypatch.setattr(timelimit.Deadline, "step", lambda *_: None)  # only epochs' ends
    words = {"device": "cpu", "time_limit": 60.0, "settings": ["train.validate_every=6"]}
    run = train(tiny_recipe, digits_npz, tmp_path / "run", **words)
    assert [row["step"] for row in run.metrics] == [4, 5]
    assert run.summary["epoch"] == 1
    refit = train(tiny_recipe, digits_npz, tmp_path / "refit", refit=True, **words)
    assert [row["step"] for row in refit.metrics] == [refit.metrics[0]["step"]]


def test_every_rank_is_told_of_another_plan(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    """Of many ranks one has the clock: what it finds at an epoch's end is a value to send, before any of them raises."""
    scripted(monkeypatch, {2: 3})
    monkeypatch.setattr(timelimit.Deadline, "step", lambda *_: None)  # as for many ranks
    sent = []

    def shared(make):
        sent.append(make())
        return sent[-1]

    monkeypatch.setattr(timelimit, "shared", shared)
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=60.0)
    assert sent == [6, 3]
    assert run.summary["epochs"] == 3


def test_the_clock_is_looked_at_now_and_then(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    """A clock of steps: each look is at least LOOK of the limit after the one before, and tells the truth about the pace."""
    seen = []

    def replan(recipe, kept, train, at, planned):
        seen.append(at)
        return planned

    monkeypatch.setattr(timelimit, "replan", replan)
    monkeypatch.setattr(timelimit, "plan_epochs", lambda *_: 6)
    monkeypatch.setattr(timelimit, "LOOK", 1e-9)
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", time_limit=60.0)
    steps = [at.epochs * 4 for at in seen]
    ends = [4, 8, 12, 16, 20]  # each epoch's but the last
    assert steps == sorted([*range(1, 24), *ends])  # each step but the last
    spent = [at.spent for at in seen]
    assert spent == sorted(spent)
    assert run.info["time_limit"]["before"] < spent[0] < spent[-1] < 60
    assert all(at.slower > 0 and at.look > 0 and at.besides >= 0 for at in seen)
    monkeypatch.setattr(timelimit, "LOOK", 10.0)
    train(tiny_recipe, digits_npz, tmp_path / "again", device="cpu", time_limit=60.0)
    assert len(seen) == len(steps)


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
