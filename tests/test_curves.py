"""`resfit curves` from the command line: runs, seeds and result records in, a picture out, mistakes in one line."""

import importlib.util
import json
import math
import os
import shutil
import sys
from xml.etree import ElementTree

import pytest

from resfit.cli import main
from resfit.curves import read_curves

SVG = "{http://www.w3.org/2000/svg}"


def run(capsys, *words) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def titles(path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return [e.text for e in root.iter(f"{SVG}title")][1:]


@pytest.fixture
def record(tmp_path):
    def write(name, recipe="r4-lighter", **changes):
        curve = {
            "train_loss": [1.6, 0.9, 0.5],
            "train_accuracy": [0.4, 0.7, 0.8],
            "val_accuracy": [0.5, 0.6, 0.75],
            "val_nll": [1.5, 1.0, None],
        }
        runs = [{"seed": 0, "curve": curve | changes}, {"seed": 1, "curve": curve | {"val_accuracy": [0.7, 0.8]}}]
        path = tmp_path / name
        path.write_text(json.dumps({"recipe": recipe, "study": "scaled", "data": "cifar10-jpeg", "runs": runs}))
        return path

    return write


def test_a_run_is_drawn_as_its_rows_are(trained, capsys, tmp_path):
    out = tmp_path / "new" / "curves.svg"
    code, printed, err = run(capsys, "curves", trained.folder, "-o", out)
    assert (code, printed) == (0, "")
    assert err == f"tiny: 3 epochs\nwritten to {out}\n"
    kinds = [f"tiny, {split} {metric}" for metric in ("accuracy", "loss") for split in ("train", "val")]
    assert titles(out) == kinds
    (curves,) = read_curves([trained.folder])
    rows = [json.loads(line) for line in trained.metrics_file.read_text().splitlines()]
    for key in ("train_accuracy", "val_accuracy", "train_loss", "val_nll"):
        assert curves.seeds[0][key] == tuple((n, row[key]) for n, row in enumerate(rows, 1))
    best = max(row["val_accuracy"] for row in rows)
    desc = ElementTree.parse(out).getroot().find(f"{SVG}desc").text
    assert f"tiny: 3 epochs, highest val accuracy {best:.2%} at epoch" in desc


def test_seeds_are_faint_and_their_mean_is_over_the_epochs_that_all_have(trained, capsys, tmp_path):
    rows = [json.loads(line) for line in trained.metrics_file.read_text().splitlines()]
    for seed, shift in ((0, 0.0), (2, 0.1), (10, 0.2)):
        folder = tmp_path / "many" / f"seed-{seed}"
        shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("checkpoints", "bundle"))
        shifted = [row | {"val_accuracy": row["val_accuracy"] / 2 + shift} for row in rows[: 3 if seed else 2]]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shifted) + '{"epoch": 3, "tr')
    shutil.copytree(tmp_path / "many" / "seed-0", tmp_path / "many" / "seed-3")
    (tmp_path / "many" / "seed-3" / "metrics.jsonl").unlink()  # not begun
    (curves,) = read_curves([tmp_path / "many"])
    assert len(curves.seeds) == 3
    assert [epoch for epoch, _ in curves.mean("val_accuracy")] == [1, 2]
    expected = [row["val_accuracy"] / 2 + 0.1 for row in rows[:2]]
    assert [value for _, value in curves.mean("val_accuracy")] == pytest.approx(expected)
    code, printed, _ = run(capsys, "curves", tmp_path / "many", "-o", tmp_path / "a.svg", "--metric", "loss", "--json")
    assert code == 0
    shown = {"name": "many (mean of 3 seeds)", "seeds": 3, "epochs": 3}
    assert json.loads(printed) == {"out": str(tmp_path / "a.svg"), "runs": [shown]}
    assert titles(tmp_path / "a.svg") == [
        f"many (mean of 3 seeds), {split} loss" for split in ["train"] * 3 + ["val"] * 3 + ["train", "val"]
    ]


def test_records_and_runs_side_by_side(trained, record, capsys, tmp_path):
    out = tmp_path / "a.SVG"
    code, _, _ = run(capsys, "curves", trained.folder, record("one.json"), record("two.json"), "-o", out)
    assert code == 0
    names = {title.partition(",")[0] for title in titles(out)}
    assert names == {"tiny", "one.json (mean of 2 seeds)", "two.json (mean of 2 seeds)"}  # one recipe, told apart
    (tmp_path / "a").mkdir()
    found = read_curves([record("a/one.json"), record("one.json"), record("b.json", "tiny"), trained.folder])
    assert [curves.name for curves in found] == ["a/one.json", f"{tmp_path.name}/one.json", "b.json", "tiny"]
    (curves,) = read_curves([record("one.json")])
    assert curves.name == "r4-lighter"
    assert curves.mean("val_accuracy") == ((1, pytest.approx(0.6)), (2, pytest.approx(0.7)))
    assert curves.mean("val_nll") == ((1, 1.5), (2, 1.0))


@pytest.mark.parametrize("nothing", [None, []])
def test_a_record_without_val_has_train_only(record, nothing):
    path = record("a.json", val_accuracy=nothing, val_nll=nothing)
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"runs": value["runs"][:1]}))
    (curves,) = read_curves([path])
    assert curves.mean("val_accuracy") == ()
    assert len(curves.mean("train_loss")) == 3


def test_mistakes_are_one_line_and_write_nothing(trained, record, capsys, tmp_path):
    empty = shutil.copytree(trained.folder, tmp_path / "empty")
    (empty / "metrics.jsonl").unlink()
    broken = shutil.copytree(trained.folder, tmp_path / "broken")
    (broken / "metrics.jsonl").write_text("{]\n")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "noise.json").write_bytes(b"\xff\xfe\x00")
    picture = record("mine.svg")
    (tmp_path / "folder.svg").mkdir()
    good, out = trained.folder, tmp_path / "out.svg"
    many = [record(f"{n}.json") for n in range(9)]
    text, percent = record("text.json", train_loss=["x", 1]), record("percent.json", val_accuracy=[50, 60, 75])
    before = sorted(os.listdir(tmp_path))
    for paths, target, message in (
        ([tmp_path / "nowhere"], out, "does not exist"),
        ([tmp_path], out, "is not a run folder"),
        ([empty], out, "has no finished epoch yet"),
        ([broken], out, "metrics.jsonl: cannot be read"),
        ([tmp_path / "list.json"], out, "is no result record"),
        ([tmp_path / "noise.json"], out, "is no result record"),
        ([text], out, "is no result record"),
        ([percent], out, "val_accuracy of epoch 1 is 50, not from 0 to 1"),
        ([good], tmp_path / "out.pdf", "is neither .svg nor .png"),
        ([good], tmp_path / "folder.svg", "is a folder"),
        ([picture], picture, "would destroy it"),
        ([good, good], out, "is named twice"),
        (many, out, "more than 8 colours cannot be told apart"),
    ):
        code, printed, err = run(capsys, "curves", *paths, "-o", target)
        assert (code, printed) == (2, ""), message
        assert message in err
        assert err.count("\n") == 1
        assert sorted(os.listdir(tmp_path)) == before
    assert run(capsys, "curves", good)[0] == 2
    assert run(capsys, "curves", good, "-o", out, "--metric", "accurcy")[0] == 2


def test_a_metric_that_no_run_has_is_said(record, capsys, tmp_path):
    path = record("a.json", train_accuracy=[], val_accuracy=[])
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"runs": value["runs"][:1]}))
    code, _, err = run(capsys, "curves", path, "-o", tmp_path / "a.svg", "--metric", "accuracy")
    assert code == 2
    assert "has no accuracy in any epoch" in err


def test_png_needs_its_extra(trained, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = run(capsys, "curves", trained.folder, "-o", tmp_path / "a.png")
    assert code == 5
    assert "pip install 'resfit[plots]'" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


def test_png_from_the_command_line(trained, capsys, tmp_path, need):
    need("matplotlib")
    assert run(capsys, "curves", trained.folder, "-o", tmp_path / "a.png")[0] == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert importlib.util.find_spec("matplotlib") is not None


def test_values_that_are_not_finite_are_left_out(record):
    (curves,) = read_curves([record("a.json", train_loss=[math.nan, 1.0, math.inf])])
    assert curves.seeds[0]["train_loss"] == ((2, 1.0),)
