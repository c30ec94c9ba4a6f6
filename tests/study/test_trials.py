"""The rules of slots, on a real SQLite database: with workers that are really killed, and each case by itself."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from optuna import TrialPruned
from optuna.trial import TrialState

from resfit import durable
from resfit.errors import GateError, ResourceError, UsageError
from resfit.study import trials
from resfit.study.space import Search, load_space
from resfit.study.trials import (
    begin,
    best_slots,
    fill,
    finished,
    give_up,
    list_rows,
    open_study,
    slot_of,
    slots,
    stands,
    take_up,
)

# ours beats through Study.optimize; these tests also ask and tell
pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")
SEARCH = Search(sampler="random", pruning="none")
SAME = {"space": "a", "data": "b"}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/study.db"


def opened(url, **more):
    return open_study(url, "test", SAME, SEARCH, **more)


@pytest.fixture
def study(url):
    with opened(url) as study:
        yield study


def train(study, wanted, marks, trial):
    """Stand in for training: some milliseconds, and a mark on disk when done, found again as a finished run is."""
    begin(study, trial)
    x = trial.suggest_float("x", 0, 1)
    if x > 0.9:
        give_up(trial, "over budget")
    if reason := stands(study, trial, wanted):
        give_up(trial, reason)
    mark = Path(marks) / slot_of(trial)
    if not mark.exists():
        time.sleep(random.uniform(0, 0.05))
        durable.write_text(mark, f"{x!r}\n")  # whole or not there, as a run's files are: a kill may fall between
    assert float(mark.read_text()) == x, "a slot's values changed"
    return x


def work(url, wanted, marks, number):
    with opened(url, worker=number, beat=2) as study:
        fill(study, wanted, lambda trial: train(study, wanted, marks, trial), lambda: False, beat=2)


def test_two_hundred_kills_lose_nothing_and_count_nothing_twice(url, tmp_path):
    wanted, kills, draw = 40, 200, random.Random(0)
    marks = tmp_path / "marks"
    marks.mkdir()
    with opened(url, beat=2):
        pass
    context = multiprocessing.get_context("fork")

    def start(number):
        process = context.Process(target=work, args=(url, wanted, str(marks), number))
        process.start()
        return process

    workers, killed, begun = [start(number) for number in range(3)], 0, 3
    while any(worker.is_alive() for worker in workers) or killed < kills:
        time.sleep(draw.uniform(0.01, 0.15))
        place = draw.randrange(3)
        if killed < kills:
            workers[place].kill()
        workers[place].join(0 if killed >= kills else None)
        if workers[place].is_alive():
            continue
        ended = workers[place].exitcode
        assert ended in (0, -signal.SIGKILL), "a worker failed"
        killed += ended != 0
        if ended != 0 or killed < kills:
            wanted += 5 * (ended == 0)  # all was done before it was killed: more are asked for, as by a larger --trials
            workers[place] = start(begun)
            begun += 1
    with opened(url) as study:
        done = finished(study)
        assert len(done) == len(slots(study)) == wanted
        assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
        complete = [slot_of(trial) for trial in study.get_trials(states=(TrialState.COMPLETE,))]
    assert Counter(complete) == Counter(done.keys())
    assert {mark.name for mark in marks.glob("[!.]*")} == set(
        done
    )  # a killed writer's temporary file begins with a dot
    for slot, trial in done.items():
        assert trial.values == [float((marks / slot).read_text())]


def test_a_dead_trial_is_taken_up_once_with_its_values(study):
    trial = study.ask()
    x = trial.suggest_float("x", 0, 1)
    take_up(study)
    assert len(study.trials) == 1  # it is alive
    study.tell(trial, state=TrialState.FAIL)  # as a stopped heartbeat has it
    take_up(study)
    take_up(study)
    assert [t.state.name for t in study.trials] == ["FAIL", "WAITING"]
    again = study.ask()
    assert (again.suggest_float("x", 0, 1), slot_of(again)) == (x, "0")
    assert stands(study, again, 1) is None


def test_of_two_that_took_up_the_same_the_earlier_stands(study):
    study.tell(study.ask(), state=TrialState.FAIL)
    for _ in range(2):  # as two workers would that look at once
        study.enqueue_trial({}, user_attrs={trials.SLOT: "0"})
    first, second = study.ask(), study.ask()
    assert (stands(study, first, 5), stands(study, second, 5)) == (None, "duplicate")


def test_no_more_than_wanted(study):
    first, second = study.ask(), study.ask()
    assert (stands(study, first, 1), stands(study, second, 1)) == (None, "surplus")
    with suppress(trials.GivenUp):
        give_up(second, "surplus")
    assert list(slots(study)) == ["0"]


def test_a_slot_taken_up_and_found_over_budget_is_over(study):
    first = study.ask()
    first.suggest_float("x", 0, 1)
    study.tell(first, state=TrialState.FAIL)  # killed before it could say so
    take_up(study)
    with suppress(TrialPruned):
        give_up(again := study.ask(), "over budget")
    study.tell(again, state=TrialState.PRUNED)
    take_up(study)
    assert slots(study) == {}
    assert len(study.trials) == 2


def test_a_slot_taken_up_may_be_one_too_many(study):
    for _ in range(2):
        study.ask()
    study.tell(1, state=TrialState.FAIL)
    take_up(study)
    again = study.ask()
    assert (slot_of(again), stands(study, again, 1), stands(study, again, 2)) == ("1", "surplus", None)


def test_the_last_life_of_a_slot_may_yet_end_well(study, monkeypatch):
    monkeypatch.setattr(trials, "LIVES", 1)
    study.tell(study.ask(), state=TrialState.FAIL)
    take_up(study)
    assert finished(study) == {}
    study.tell(study.ask(), 0.5)
    assert finished(study)["0"].values == [0.5]


def test_a_trial_killed_before_its_first_heartbeat_is_not_a_zombie(study, monkeypatch):
    study.ask()
    take_up(study)
    assert study.trials[0].state == TrialState.RUNNING
    monkeypatch.setattr(trials, "UNBORN", -1)
    take_up(study)
    take_up(study)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "WAITING"]


def test_a_slot_that_keeps_dying_counts_as_failed(study, monkeypatch):
    monkeypatch.setattr(trials, "LIVES", 3)
    for _ in range(4):
        study.tell(study.ask(), state=TrialState.FAIL)
        take_up(study)
    assert list(finished(study)) == ["0"]
    assert not study.get_trials(states=(TrialState.WAITING,))


def test_rows_are_queued_once_whoever_asks(study):
    for _ in range(2):
        assert list_rows(study, {3: "three", 5: "five"}, [1, 2]) == {"3/1", "3/2", "5/1", "5/2"}
    assert sorted(slots(study)) == ["3/1", "3/2", "5/1", "5/2"]
    for trial in [study.ask() for _ in range(4)]:
        row, seed = (trial.suggest_int(name, 0, 2**31) for name in ("row", "seed"))
        assert slot_of(trial) == f"{row}/{seed}"
        study.tell(trial, 0.1 * row)
    assert len(finished(study)) == 4


def test_other_rows_than_before_are_trained_too(study):

    def train_row(trial):
        begin(study, trial)
        return float(sum(trial.suggest_int(name, 0, 2**31) for name in ("row", "seed")))

    for labels in ({3: "three"}, {5: "five"}):
        fill(study, list_rows(study, labels, [1, 2]), train_row, lambda: False)
    assert sorted(finished(study)) == ["3/1", "3/2", "5/1", "5/2"]
    assert stands(study, study.ask(), frozenset({"5/1"})) == "surplus"  # what nobody listed


def test_the_best_are_those_trained_to_their_end(study):
    for value in (0.1, 0.7, 0.7, 0.3):
        study.tell(study.ask(), value)
    pruned = study.ask()
    pruned.report(0.9, 1)
    study.tell(pruned, state=TrialState.PRUNED)
    assert best_slots(finished(study), 3) == ["1", "2", "3"]


def test_a_space_without_a_network_in_budget_ends(study, monkeypatch):
    monkeypatch.setattr(trials, "IN_A_ROW", 7)
    with pytest.raises(GateError, match="the last 7 recipes drawn were over the budget"):
        fill(study, 3, lambda trial: give_up(trial, "over budget"), lambda: False)
    assert len(study.trials) == 7


def test_points_are_drawn_from_the_space(study):
    space = load_space("small")
    for _ in range(20):
        point = trials.suggest(study.ask(), space)
        assert all(point[f"network.widths.{n}"] in range(8, 97, 8) for n in range(3))
        assert 0.02 <= point["optim.lr"] <= 0.5
        assert point["train.batch_size"] in (64, 128)
        space.recipe(point)


def test_choices_that_are_lists_come_back_as_they_are(study):
    space = load_space("r2")
    trial = study.ask()
    value = trials._draw(trial, "network.widths", space)
    assert value in ([16, 32, 64, 128], [64, 128, 256, 512])
    assert space.point(trial.params)["network.widths"] == value


def test_a_study_of_another_space_is_refused(url, study):
    other = open_study(url, "test", SAME | {"space": "other"}, SEARCH)
    with pytest.raises(UsageError, match="its study 'test' has another space"), other:
        pass


def test_a_damaged_database_is_one_line_and_left_alone(url, tmp_path):
    file = tmp_path / "study.db"
    with opened(url):
        pass
    file.write_bytes(b"\0garbage" + os.urandom(5000))
    before = file.read_bytes()
    words = r"study.db: the study's database does not work: file is not a database"
    with pytest.raises(ResourceError, match=words), opened(url):
        pass
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("address", "kind", "words"),
    [
        ("postgresql://nobody:secret@127.0.0.1:1/none", ResourceError, r"postgresql://nobody:\*\*\*@127.0.0.1:1/none"),
        ("nonsense", UsageError, "--storage nonsense: is no address of a database"),
        ("oracel://x/y", UsageError, "--storage oracel://x/y: is no address of a database"),
        ("sqlite:////nowhere/at/all/study.db", ResourceError, "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_reached(address, kind, words):
    with pytest.raises(kind, match=words) as error, opened(address):
        pass
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)
