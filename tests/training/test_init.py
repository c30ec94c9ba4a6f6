"""Starting from a bundle's weights: what comes along, what is new, what is refused; resumed to the same bytes."""

import shutil

import numpy as np
import pytest
import torch

from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.evaluation.bundle import load_bundle
from resfit.models.families import build
from resfit.runs import Run
from resfit.training import loop
from resfit.training.checkpoint import load_newest
from resfit.training.init import make_state
from resfit.training.launch import resume, train
from runfiles import essence, killed_at


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory, digit_arrays):
    """Other images than the bundle's, of two of its classes."""
    images, labels = digit_arrays
    path = tmp_path_factory.mktemp("data") / "two.npz"
    np.savez(path, images=255 - images[labels < 2], labels=labels[labels < 2])
    return path


def run_of(words, out):
    assert main(["train", *map(str, words), "--out", str(out)]) == 0
    return Run(out)


def test_all_but_the_head_comes_along(trained, two_classes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    with killed_at(monkeypatch, 1):
        main(["train", "--init", str(trained.folder), "--data", str(two_classes), "--out", str(tmp_path / "run")])
    run = Run(tmp_path / "run")
    theirs = load_bundle(trained.folder, "cpu")
    assert (run.recipe.data.mean, run.recipe.data.std) == (theirs.mean, theirs.std)
    assert run.recipe.network.classes == 2
    assert run.recipe.name == "resnet"  # by the default recipe
    state = make_state(run.recipe, 0, torch.device("cpu"), load_split(two_classes, "train", PixelRule(16)))
    saved, _, _ = load_newest(run.checkpoints, step=0)
    drawn, there = build(run.recipe.network, 0).state_dict(), theirs.model.state_dict()
    for name, value in state.model.state_dict().items():
        expected = drawn[name] if name.startswith("head.") else there[name]
        assert torch.equal(value, expected), name
        assert torch.equal(saved[f"model.{name}"], expected), name


def test_the_head_too_for_the_same_classes(trained, digits_npz, tmp_path, tiny_recipe):
    settings = [f"init={trained.folder}", "optim.lr=1e-9", "train.epochs=1", "schedule.warmup_epochs=0"]
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    mine, theirs = (load_bundle(folder, "cpu").model.head.weight for folder in (run.folder, trained.folder))
    assert torch.allclose(mine, theirs, atol=1e-5)


def test_a_run_that_starts_from_a_bundle_resumes_without_it(trained, two_classes, tmp_path, tiny_recipe, monkeypatch):
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    words = [tiny_recipe, "--init", bundle, "--data", two_classes]
    whole = run_of(words, tmp_path / "whole")
    assert str(tmp_path) not in (whole.bundle / "README.md").read_text()
    with killed_at(monkeypatch, 3):
        main(["train", *map(str, words), "--out", str(tmp_path / "run")])
    shutil.rmtree(bundle)
    assert essence(resume(tmp_path / "run")) == essence(whole)


def test_other_weights_than_the_run_was_made_with_are_refused(trained, two_classes, tmp_path, tiny_recipe, capsys):
    bundle = tmp_path / "bundle"
    shutil.copytree(trained.bundle, bundle)
    run = run_of([tiny_recipe, "--init", bundle, "--data", two_classes], tmp_path / "run")
    file = bundle / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert main(["resume", str(run.folder), "--fresh"]) == 2
    assert "holds other weights than when the run was made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--init", "nowhere"], "nowhere: holds no bundle"),
        (["resnet-8", "--init", "BUNDLE"], "and the recipe another. Leave the recipe out"),
    ],
)
def test_what_cannot_be_started_from_is_one_line(words, message, trained, two_classes, tmp_path, capsys):
    words = [str(trained.folder) if word == "BUNDLE" else word for word in words]
    assert main(["train", *words, "--data", str(two_classes), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()
