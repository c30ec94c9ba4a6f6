"""The whole evaluation of a real run: its parts against what the run predicted, test stays closed, planted duplicates found."""

import json
import shutil

import numpy as np
import pytest

from resfit.cli import main
from resfit.data import sources
from resfit.data.sources import load_splits, split_manifest
from resfit.errors import DataError, UsageError
from resfit.evaluation.bundle import load_bundle
from resfit.evaluation.corruptions import CORRUPTIONS, corrupt
from resfit.evaluation.depth import evaluate_fully
from resfit.evaluation.holdout import evaluate
from resfit.findings import full_text
from resfit.runs import Run, open_run
from resfit.training.launch import train


@pytest.fixture(scope="module")
def copy(trained, tmp_path_factory) -> Run:
    return Run(shutil.copytree(trained.folder, tmp_path_factory.mktemp("depth") / "run"))


@pytest.fixture(scope="module")
def asked(copy, tmp_path_factory):
    """The evaluation, and the parts of the data that it read."""
    parts = []
    real = sources.read_cached
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESFIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sources, "read_cached", lambda opened, part, *how: parts.append(part) or real(opened, part, *how))
        return evaluate_fully(copy.folder, device="cpu"), parts


@pytest.fixture(scope="module")
def value(asked):
    return asked[0]


def test_the_test_split_stays_closed_and_the_file_has_what_is_returned(asked, copy):
    value, parts = asked
    assert set(parts) == {"trainval"}
    assert not copy.receipt_file.exists()
    assert json.loads(copy.evaluation_file.read_text()) == value


def test_it_says_what_evaluate_says(value, copy):
    plain = evaluate(copy.folder, device="cpu")
    assert {name: value[name] for name in plain} == plain
    assert (value["format"], value["split"]) == ("resfit-evaluation-1", "val")
    assert value["fingerprint"] == copy.info["data"]["val"]


def test_parts_follow_from_the_predictions_that_training_kept(value, copy):
    with np.load(copy.predictions_file) as arrays:
        probs, labels = arrays["probs"], arrays["labels"]
    names = value["class_names"]
    assert np.diag(value["confusion"]).sum() == value["correct"]
    assert np.sum(value["confusion"]) == value["n"] == len(labels)
    assert [sum(row) for row in value["confusion"]] == [value["balance"]["val"][name] for name in names]
    wrong = [i for i in range(len(labels)) if probs[i].argmax() != labels[i]]
    expected = sorted(wrong, key=lambda i: -probs[i].max())[:24]
    assert [row["row"] for row in value["mistakes"]] == expected
    for row in value["mistakes"] + value["suspicious"]:
        assert row["label"] == labels[row["row"]]
        assert row["predicted"] == probs[row["row"]].argmax()
    for row in value["mistakes"]:
        assert row["confidence"] == pytest.approx(probs[row["row"]].max(), rel=1e-4)
    assert len(value["calibration"]["bins"]) == len(value["calibration"]["scaled"]["bins"]) == 15
    assert value["selective"]["points"][-1]["accuracy"] == pytest.approx(value["accuracy"])
    assert len(value["suspicious"]) <= 10
    counts = value["balance"]["train"].values()
    assert value["balance"]["ratio"] == max(counts) / min(counts)
    assert sum(counts) == value["train_images"]


def test_ids_are_rows_of_the_file_that_the_user_has(value, digits_npz):
    with np.load(digits_npz) as arrays:
        images, labels = arrays["images"], arrays["labels"]
    val = [name for name, _, split in split_manifest(digits_npz) if split == "val"]
    for row in value["mistakes"] + value["suspicious"]:
        assert row["id"] == val[row["row"]]
        assert labels[int(row["id"])] == row["label"]
    train_rows = {name for name, _, split in split_manifest(digits_npz) if split == "train"}
    for pair in value["duplicates"]["pairs"]:
        assert pair["train"] in train_rows
        one, other = images[int(pair["val"])].astype(float).ravel(), images[int(pair["train"])].astype(float).ravel()
        assert np.corrcoef(one, other)[0, 1] > 0.7


def test_corruptions_are_scored_as_they_are_made(value, copy, digits_npz):
    bundle = load_bundle(copy.folder, "cpu")
    (val,) = load_splits(digits_npz, ("val",), bundle.rule)
    table = {(row["name"], row["strength"]): row["accuracy"] for row in value["corruptions"]["rows"]}
    assert len(table) == len(value["corruptions"]["rows"]) == 5 * len(CORRUPTIONS)
    assert value["corruptions"]["n"] == len(val)  # fewer than a thousand: all
    assert value["corruptions"]["clean"] == value["accuracy"]
    assert value["corruptions"]["mean"] == pytest.approx(np.mean(list(table.values())))
    for name, strength in (("gaussian-noise", 5), ("contrast", 3)):
        made = corrupt(np.array(val.images), val.keys, name, strength)
        assert table[name, strength] == (bundle.logits(made).argmax(1) == val.labels).mean()


def test_planted_duplicates_of_val_are_found(tiny_recipe, digit_arrays, tmp_path):
    """Two val images in train too, one under another label; val as the source brings it, by class folders of arrays."""
    from PIL import Image

    images, labels = digit_arrays
    for split, rows in (("train", range(60, 300)), ("val", range(60)), ("test", range(3))):
        for row in rows:
            file = tmp_path / "data" / split / str(labels[row]) / f"{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row]).save(file)
    shutil.copy(
        tmp_path / "data/val" / str(labels[7]) / "7.png", tmp_path / "data/train" / str(labels[7]) / "copied.png"
    )
    moved = str((labels[9] + 1) % 3)
    Image.fromarray(images[9]).convert("RGB").save(tmp_path / "data" / "train" / moved / "relabelled.png")
    run = train(tiny_recipe, tmp_path / "data", tmp_path / "run", device="cpu", settings=["train.epochs=1"])
    found = evaluate_fully(run.folder, device="cpu")["duplicates"]
    exact = [pair for pair in found["pairs"] if pair["distance"] == 0]
    assert found["exact"] == len(exact) == 2
    by_id = {pair["val"]: pair for pair in exact}
    copied, relabelled = by_id[f"val/{labels[7]}/7.png"], by_id[f"val/{labels[9]}/9.png"]
    assert copied["train"] == f"train/{labels[7]}/copied.png"
    assert copied["same_label"]
    assert relabelled["train"] == f"train/{moved}/relabelled.png"
    assert not relabelled["same_label"]
    assert found["accuracy_without"]["n"] == 60 - found["exact"] - found["near"]


def test_the_command_prints_all_parts_and_json(copy, capsys):
    assert main(["evaluate", str(copy.folder), "--full", "--device", "cpu"]) == 0
    text, said = capsys.readouterr()
    for word in ("val accuracy", "confused", "calibration", "selective", "corruptions", "duplicates", "balance"):
        assert word in text
    assert "most confident mistakes" in text
    assert "most suspicious labels" in text
    assert "under 60 corruptions: about" in said
    assert main(["evaluate", str(copy.folder), "--full", "--json", "--device", "cpu"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"run": str(copy.folder)} | json.loads(copy.evaluation_file.read_text())


def test_hostile_names_cannot_steer_a_terminal(value):
    bad = "\x1b]0;owned\x07\u202eevil\r"
    names = [bad, "b", "c"]
    classes = dict(zip(names, value["classes"].values(), strict=True))
    row = {"id": bad, "row": 0, "label": 0, "predicted": 1, "confidence": 0.9, "score": 0.1}
    hostile = value | {"class_names": names, "classes": classes, "mistakes": [row], "suspicious": [row]}
    shown = full_text(hostile)
    assert "evil" in shown
    assert not set("\x1b\x07\u202e\r") & set(shown)


def test_mistakes_are_one_line_and_write_nothing(copy, digits_npz, digit_arrays, tmp_path, capsys):
    run = Run(shutil.copytree(copy.folder, tmp_path / "run"))
    run.evaluation_file.unlink()
    images, labels = digit_arrays
    np.savez(tmp_path / "two.npz", images=images[labels < 2], labels=labels[labels < 2])
    with pytest.raises(DataError, match="training split is not the one the run trained on"):
        evaluate_fully(run.folder, tmp_path / "two.npz", device="cpu")
    assert main(["evaluate", str(run.bundle), "--full"]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    run.update(source=str(tmp_path / "gone.npz"))
    with pytest.raises(DataError, match=r"no longer there\. Name the place with --data"):
        evaluate_fully(run.folder, device="cpu")
    run.update(refit=True)
    with pytest.raises(UsageError, match="nothing is held out"):
        evaluate_fully(run.folder, digits_npz, device="cpu")
    assert not open_run(run.folder).evaluation_file.exists()
    assert main(["compare", str(copy.folder), str(run.folder)]) == 2
    assert "was refit" in capsys.readouterr().err
