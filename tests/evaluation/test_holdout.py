"""Validation as often as one likes, the test split once."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from resfit.data import sources
from resfit.errors import DataError, ResourceError, UsageError
from resfit.evaluation import holdout
from resfit.evaluation.holdout import evaluate, note_opening
from resfit.evaluation.holdout import test as open_test
from resfit.runs import Run
from resfit.training.launch import train


@pytest.fixture
def copy(trained, tmp_path) -> Run:
    return Run(shutil.copytree(trained.folder, tmp_path / "copy"))


def test_evaluate_gives_what_training_said(copy):
    value = evaluate(copy.folder, device="cpu")
    summary = copy.summary["val"]
    assert value["accuracy"] == summary["accuracy"]
    assert value["nll"] == pytest.approx(summary["nll"], rel=1e-5)
    best = max(copy.metrics, key=lambda row: (row["val_accuracy"], -row["val_nll"]))
    assert value["accuracy"] == best["val_accuracy"]
    assert copy.summary["epoch"] == best["epoch"]
    assert not copy.receipt_file.exists()


def test_training_and_evaluating_never_ask_for_the_test_split(tiny_recipe, digits_npz, tmp_path, monkeypatch):
    asked = []
    real = sources.read_cached

    def spy(opened, part, *how):
        asked.append(part)
        return real(opened, part, *how)

    monkeypatch.setattr(sources, "read_cached", spy)
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu")
    evaluate(run.folder, device="cpu")
    assert set(asked) == {"trainval"}
    open_test(run.folder, device="cpu")
    assert "test" in asked


def test_the_test_split_is_opened_once(copy, monkeypatch):
    first = open_test(copy.folder, device="cpu")
    assert first["reopened"]
    assert first["opening"] == 1
    assert first["n"] == 30  # 10% of 300
    assert first["train_images"] == copy.summary["train_images"]
    assert first["classes"].keys() == {"0", "1", "2"}

    def closed(*args):
        raise AssertionError("opened again")

    with monkeypatch.context() as inside:
        inside.setattr(holdout, "load_split", closed)
        again = open_test(copy.folder, device="cpu")
    assert again == first | {"reopened": False}
    third = open_test(copy.folder, device="cpu", again=True)
    assert third["opening"] == 2
    assert third["accuracy"] == first["accuracy"]


def test_the_ledger_belongs_to_the_test_set_and_not_to_the_run(copy, tiny_recipe, digits_npz, digit_arrays, tmp_path):
    open_test(copy.folder, device="cpu")
    images, labels = digit_arrays
    order = np.random.default_rng(0).permutation(len(images))
    np.savez(tmp_path / "shuffled.npz", images=images[order], labels=labels[order])
    other = train(tiny_recipe, tmp_path / "shuffled.npz", tmp_path / "other", device="cpu")
    receipt = open_test(other.folder, device="cpu")
    assert receipt["opening"] == 2
    assert receipt["fingerprint"] == json.loads(copy.receipt_file.read_text())["fingerprint"]


def test_other_data_is_refused(copy, digit_arrays, tmp_path):
    images, labels = digit_arrays
    np.savez(tmp_path / "two.npz", images=images[labels < 2], labels=labels[labels < 2])
    with pytest.raises(DataError, match="is not the one the run chose on"):
        evaluate(copy.folder, tmp_path / "two.npz", device="cpu")
    np.savez(
        tmp_path / "grown.npz", images=np.concatenate([images, 255 - images]), labels=np.concatenate([labels, labels])
    )
    for name in ("two.npz", "grown.npz"):
        with pytest.raises(DataError, match="is not what the run was trained on"):
            open_test(copy.folder, tmp_path / name, device="cpu")
    copy.update(source=None)  # trained on arrays: what remains to be compared are the classes
    with pytest.raises(DataError, match="its classes"):
        open_test(copy.folder, tmp_path / "two.npz", device="cpu")
    assert not copy.receipt_file.exists()
    assert not (holdout.state_folder() / "test-openings").exists()


def test_refit_runs_have_nothing_to_evaluate_on(copy):
    copy.update(refit=True)
    with pytest.raises(UsageError, match="nothing is held out"):
        evaluate(copy.folder)


def test_unfinished_runs_are_sent_to_resume(copy):
    shutil.rmtree(copy.bundle)
    with pytest.raises(UsageError, match="resfit resume"):
        open_test(copy.folder, device="cpu")


def test_a_ledger_that_cannot_be_written_stops_the_test(copy, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RESFIT_STATE", str(tmp_path / "file"))
    with pytest.raises(ResourceError, match="RESFIT_STATE"):
        open_test(copy.folder, device="cpu")
    assert not copy.receipt_file.exists()


def test_openings_count_up_per_fingerprint(tmp_path):
    assert [note_opening("a", tmp_path), note_opening("a", tmp_path), note_opening("b", tmp_path)] == [1, 2, 1]
    ledgers = (holdout.state_folder() / "test-openings").glob("[!.]*")
    assert sorted(path.name for path in ledgers) == ["a.jsonl", "b.jsonl"]


def test_openings_at_one_moment_are_all_counted(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: note_opening("a", tmp_path), range(24)))
    assert sorted(counts) == list(range(1, 25))
