"""`resfit reproduce` and its record: real, if very short, trainings on handwritten digits, and what is refused."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from resfit.cli import main
from resfit.data import cifar
from resfit.errors import UsageError
from resfit.published import add_result, read_results
from resfit.published.record import data_name, find_folder, normal, result_file, study_name, study_text

SHORT = ["--set", "train.epochs=1", "--set", "data.image_size=8", "--device", "cpu"]
SETTINGS = ["train.epochs=1", "data.image_size=8"]


def run(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def made(tmp_path_factory, digits_npz):
    """A folder in which `resfit reproduce r5-start` ran with two seeds, and was asked for them again."""
    folder = tmp_path_factory.mktemp("reproduce")
    before, here = dict(os.environ), Path.cwd()
    os.environ |= {"RESFIT_CACHE": str(folder / "cache"), "RESFIT_STATE": str(folder / "state")}
    os.chdir(folder)
    try:
        words = ["reproduce", "r5-start", "--data", str(digits_npz), *SHORT]
        assert main([*words, "--seeds", "1"]) == 0
        first = json.loads((folder / "results/reproduce/r5-start-1-epoch-8px.json").read_text())
        assert main([*words, "--seeds", "2"]) == 0
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
    return folder, first


def test_the_record_of_two_seeds(made):
    folder, first = made
    record = json.loads((folder / "results/reproduce/r5-start-1-epoch-8px.json").read_text())
    assert [row["seed"] for row in record["runs"]] == [0, 1]
    assert record["runs"][0] == first["runs"][0]  # kept, not trained again
    assert (first["n"], record["n"]) == (1, 2)
    receipts = [
        json.loads(path.read_text()) for path in sorted(folder.rglob("test.json")) if path.parent.name != "bundle"
    ]
    scores = [round(receipt["accuracy"], 4) for receipt in receipts]
    assert [row["test_accuracy"] for row in record["runs"]] == scores
    assert record["value"] == pytest.approx(sum(scores) / 2, abs=1e-4)
    assert record["spread"] == [min(scores), max(scores)]
    assert {receipt["opening"] for receipt in receipts} == {1, 2}
    assert (record["study"], record["settings"]) == ("1-epoch-8px", sorted(SETTINGS))
    assert (record["data"], record["goal"], record["peer"]) == ("digits.npz", None, None)
    assert (record["epochs"], record["image_size"], record["device_kind"]) == (1, 8, "cpu")
    assert record["weights"] == "best epoch on val"
    wanted = {"figure", "goal_is", "device", "commit", "params", "macs", "train_images", "tta_views", "torch"}
    assert wanted <= record.keys()
    curve = record["runs"][1]["curve"]
    assert [len(line) for line in curve.values()] == [1, 1, 1, 1]
    metrics = json.loads((folder / "runs/reproduce/r5-start-1-epoch-8px/seed-1/metrics.jsonl").read_text())
    assert curve["val_accuracy"] == [round(metrics["val_accuracy"], 4)]


def test_claims_show_it_beside_the_claim(made, capsys, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(folder)
    code, out, _ = run(capsys, "claims", "--json")
    rows = {row["id"]: row for row in json.loads(out)["claims"]}
    assert code == 0
    row = rows["r5-start-accuracy"]
    assert (row["verdict"], row["report"], row["needs"]) == ("undetermined", "r5", "gpu")
    assert row["measured"].startswith("1 epoch at 8 px: ")
    assert row["measurement"]["n"] == 2
    assert rows["r5-accuracy"]["measured"] is None
    assert rows["r5-accuracy"]["command"] == "resfit reproduce r5 --data cifar10 --seeds 3 --refit"
    code, out, _ = run(capsys, "claims", "--results", folder / "results", "--report", "r5")
    assert "1 epoch at 8 px" in out
    assert "R4" not in out
    assert out.splitlines()[-2].startswith("17 claims: 2 reproduced, ")


def test_refit_is_another_record(made, capsys, monkeypatch, digits_npz):
    folder, _ = made
    monkeypatch.chdir(folder)
    words = ["reproduce", "r5-start", "--data", digits_npz, *SHORT, "--seeds", 1, "--refit", "--json"]
    code, out, err = run(capsys, *words)
    assert code == 0
    assert "record: results/reproduce/r5-start-refit-1-epoch-8px.json" in err
    assert json.loads(out)["record"] == "results/reproduce/r5-start-refit-1-epoch-8px.json"
    assert {row["id"] for row in json.loads(out)["claims"]} == {"r5-start-params", "r5-start-accuracy", "r5-over-start"}
    record = json.loads(Path("results/reproduce/r5-start-refit-1-epoch-8px.json").read_text())
    assert record["runs"][0]["val_accuracy"] is None
    assert record["runs"][0]["curve"]["val_accuracy"] is None
    assert record["train_images"] == 270


def test_other_data_are_not_mixed_in(made, capsys, monkeypatch, tmp_path, digit_arrays):
    folder, _ = made
    monkeypatch.chdir(folder)
    images, labels = digit_arrays
    np.savez(tmp_path / "fewer.npz", images=images[:200], labels=labels[:200])
    words = ["reproduce", "r5-start", "--data", tmp_path / "fewer.npz", *SHORT, "--out", tmp_path / "new"]
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "holds runs of another set of training images" in err
    assert not (tmp_path / "new").exists()
    record = Path("results/reproduce/r5-start-1-epoch-8px.json")
    text = record.read_text()
    for key, value in (("device_kind", "cuda"), ("epochs", 2), ("settings", [])):
        record.write_text(json.dumps(json.loads(text) | {key: value}))
        code, _, err = run(capsys, *words)
        record.write_text(text)
        assert code == 2
        assert f"another {key.replace('_', ' ')}" in err


def test_only_a_tested_run_of_that_recipe_is_added(made, tmp_path, trained):
    folder, _ = made
    done = folder / "runs/reproduce/r5-start-1-epoch-8px/seed-0"
    with pytest.raises(UsageError, match="was not trained by r5-start --set"):
        add_result(tmp_path, done, "r5-start", ["train.epochs=1", "data.image_size=16"])
    with pytest.raises(UsageError, match="was not trained by r5 "):
        add_result(tmp_path, done, "r5", SETTINGS)
    copy = shutil.copytree(done, tmp_path / "copy")
    (copy / "test.json").unlink()
    with pytest.raises(UsageError, match="has not been tested"):
        add_result(tmp_path, copy, "r5-start", SETTINGS)
    assert not (tmp_path / "reproduce").exists()
    file = add_result(tmp_path, done, "r5-start", SETTINGS, command="python benchmarks/x.py")
    assert json.loads(file.read_text())["command"] == "python benchmarks/x.py"


@pytest.mark.parametrize(
    ("settings", "name", "text"),
    [
        ([], "full", ""),
        (["train.epochs=1", "data.image_size=16"], "1-epoch-16px", "1 epoch at 16 px"),
        (["train.epochs=2"], "2-epochs", "2 epochs"),
        (["data.image_size=16"], "16px", "at 16 px"),
        (["optim.lr=0.20", "optim.name=adam"], "optim.name-adam-optim.lr-0.2", "optim.name=adam, optim.lr=0.2"),
    ],
)
def test_a_study_is_named_after_what_it_changes(settings, name, text):
    assert study_name(settings) == name
    assert study_text(settings) == text
    assert study_name(settings[::-1]) == name


def test_where_a_record_lies():
    assert result_file(Path("r"), "r5", [], False) == Path("r/reproduce/r5.json")
    assert result_file(Path("r"), "r5", ["train.epochs=1"], True) == Path("r/reproduce/r5-refit-1-epoch.json")


def test_data_are_known_by_content(tmp_path, monkeypatch):
    assert data_name("ef752fbfffeaf31e", "anything") == "cifar10-jpeg"
    assert data_name("0" * 16, None) == "arrays in memory"
    assert data_name("0" * 16, "/some/where/cifar10") == "cifar10 (unverified)"
    assert data_name("0" * 16, "cifar10-jpeg") == "cifar10-jpeg (unverified)"
    assert data_name("0" * 16, "/photos/birds") == "birds"
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "test_batch").write_bytes(b"as published")
    assert data_name("0" * 16, str(folder)) == "cifar-10-batches-py (unverified)"
    monkeypatch.setattr(cifar, "_TEST_BATCH_MD5", hashlib.md5(b"as published").hexdigest())
    assert data_name("0" * 16, str(folder)) == "cifar10"
    assert data_name("0" * 16, str(tmp_path)) == "cifar10"
    monkeypatch.setenv("RESFIT_DATA", str(tmp_path))
    assert data_name("0" * 16, "cifar10") == "cifar10"


MISTAKES = {
    "reproduce r4-lihter --data digits": (2, "is no shipped recipe. Did you mean 'r4-lighter'"),
    "reproduce resnet-8 --data digits": (2, "The reports' rows: r1-baseline, r1-1,"),
    "reproduce r5": (2, "--data"),
    "reproduce r5 --data digits --seeds 0": (2, "--seeds: must be at least 1"),
    "reproduce r5 --data digits --set train.epoch=3": (2, "train.epoch: no such key"),
    "reproduce r5 --data nowhere": (4, "nowhere: neither a path that exists nor a known name"),
    "reproduce r5 --data digits --device cuda:7": (6, "--device cuda:7: is not usable here"),
    "claims --results nowhere": (2, "--results nowhere: has no folder `reproduce`"),
    "claims --report r6": (2, "--report r6: is no report. The reports: r1, r2, r3, r4, r5."),
    "claims r4": (2, "r4: one argument too many"),
}


@pytest.mark.parametrize("words", MISTAKES, ids=lambda words: words[:50])
def test_mistakes_are_one_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, message = MISTAKES[words]
    found, _, err = run(capsys, *words.split())
    assert found == code
    assert message in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_a_file_that_is_no_record_is_named(tmp_path, capsys):
    (tmp_path / "reproduce").mkdir()
    for text in ("{", "[]", '{"value": 1}'):
        (tmp_path / "reproduce" / "r5.json").write_text(text)
        code, _, err = run(capsys, "claims", "--results", tmp_path)
        assert code == 2
        assert "r5.json" in err


def test_records_of_this_checkout_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_folder(None) == Path(__file__).resolve().parents[2] / "results" / "reproduce"
    (tmp_path / "results" / "reproduce").mkdir(parents=True)
    assert find_folder(None) == Path("results/reproduce")
    assert read_results() == []


def test_where_a_teacher_lies_is_no_setting():
    settings = ["distill.teacher=runs/one", "train.epochs=1"]
    assert normal(settings) == ["train.epochs=1"]
    assert result_file(Path("r"), "r1-distill", settings, refit=False).name == "r1-distill-1-epoch.json"
