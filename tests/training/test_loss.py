"""Losses against their formulas, and what a teacher is asked and refused."""

import shutil

import numpy as np
import pytest
import torch

from resfit.cli import main
from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.errors import UsageError
from resfit.evaluation.bundle import load_bundle
from resfit.recipe import Distill
from resfit.recipefile import load_recipe
from resfit.runs import Run
from resfit.training.launch import resume, train
from resfit.training.loss import distillation, load_teacher, make_loss
from resfit.training.seeds import train_seeds

LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, 1, 1, 2, 0])


def test_hard_smooth_and_soft_targets():
    log_probs = LOGITS.double().log_softmax(1).numpy()
    hard = -log_probs[np.arange(6), LABELS].mean()
    smooth = 0.9 * hard + 0.1 * -log_probs.mean()
    targets = torch.rand(6, 4, generator=torch.Generator().manual_seed(1))
    targets /= targets.sum(1, keepdim=True)
    soft = -(targets.numpy() * log_probs).sum(1).mean()
    plain, smoothing = make_loss(0.0, Distill(), None), make_loss(0.1, Distill(), None)
    assert plain(LOGITS, LABELS, LOGITS).item() == pytest.approx(hard, rel=1e-5)
    assert smoothing(LOGITS, LABELS, LOGITS).item() == pytest.approx(smooth, rel=1e-5)
    assert plain(LOGITS, targets, LOGITS).item() == pytest.approx(soft, rel=1e-5)
    assert smoothing(LOGITS, torch.eye(4)[LABELS], LOGITS).item() == pytest.approx(smooth, rel=1e-5)


def test_class_weights_multiply_each_images_loss_and_nothing_else():
    weights, log_probs = torch.tensor([0.5, 2.0, 1.0, 0.25]), LOGITS.double().log_softmax(1).numpy()
    plain = make_loss(0.0, Distill(), None, weights)
    each = -log_probs[np.arange(6), LABELS] * weights.numpy()[LABELS]
    assert plain(LOGITS, LABELS, LOGITS).item() == pytest.approx(each.sum() / 6, rel=1e-5)
    assert plain(LOGITS, torch.eye(4)[LABELS], LOGITS).item() == pytest.approx(each.sum() / 6, rel=1e-5)
    # torch divides by the sum of the weights instead; its smoothing weighs the other classes too
    torchs = torch.nn.functional.cross_entropy(LOGITS, LABELS, weights) * weights[LABELS].sum() / 6
    assert plain(LOGITS, LABELS, LOGITS).item() == pytest.approx(torchs.item(), rel=1e-5)
    mixed = 0.3 * torch.eye(4)[LABELS] + 0.7 * torch.eye(4)[LABELS.flip(0)]
    soft = -(mixed.numpy() * log_probs).sum(1) * (mixed.numpy() @ weights.numpy())
    assert plain(LOGITS, mixed, LOGITS).item() == pytest.approx(soft.mean(), rel=1e-5)
    parts = [plain(LOGITS[part], LABELS[part], LOGITS[part]).item() for part in (slice(0, 3), slice(3, 6))]
    assert sum(parts) / 2 == pytest.approx(each.sum() / 6, rel=1e-5)  # as optim.accumulate adds them


def test_balanced_weights_are_scikit_learns_and_stand_in_the_recipe(tmp_path, digit_arrays, tiny_recipe, capsys):
    from sklearn.utils.class_weight import compute_class_weight

    images, labels = digit_arrays
    keep = np.concatenate(
        [np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:40], np.flatnonzero(labels == 2)[:9]]
    )
    np.savez(tmp_path / "a.npz", images=images[keep], labels=labels[keep])
    words = ["--data", str(tmp_path / "a.npz"), "--set", "train.epochs=1"]
    assert main(["train", str(tiny_recipe), *words, "--out", str(tmp_path / "plain")]) == 0
    said = capsys.readouterr().err
    assert "warning: fewer than 10 training images of 2 (7): their accuracy says little" in said
    assert "training images of 0, 7 of 2: look at the balanced accuracy" in said
    words += ["--set", "train.class_weights=balanced"]
    assert main(["train", str(tiny_recipe), *words, "--out", str(tmp_path / "run")]) == 0
    assert "look at the balanced accuracy" not in capsys.readouterr().err
    given = Run(tmp_path / "run").recipe.train.class_weights
    train_set = load_split(tmp_path / "a.npz", "train", PixelRule(16))
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=train_set.labels)
    np.testing.assert_allclose(given, theirs, atol=1e-6)
    rows = [Run(tmp_path / name).metrics[0]["train_loss"] for name in ("plain", "run")]
    assert rows[0] != rows[1]
    wrong = ["--data", str(tmp_path / "a.npz"), "--set", "train.class_weights=[1.0,2.0]"]
    assert main(["train", str(tiny_recipe), *wrong, "--out", str(tmp_path / "no")]) == 2
    assert "train.class_weights: 2 given, and there are 3 classes" in capsys.readouterr().err


def test_distillation_is_the_papers():
    theirs = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    p, q = (values.double().div(3).softmax(1).numpy() for values in (theirs, LOGITS))
    divergence = (p * np.log(p / q)).sum(1).mean() * 9
    assert distillation(LOGITS, theirs, 3.0).item() == pytest.approx(divergence, rel=1e-5)
    assert distillation(theirs, theirs, 3.0).item() == pytest.approx(0, abs=1e-6)
    both = make_loss(0.0, Distill(temperature=3.0, weight=0.25), lambda inputs: theirs)
    hard = make_loss(0.0, Distill(), None)(LOGITS, LABELS, LOGITS).item()
    assert both(LOGITS, LABELS, LOGITS).item() == pytest.approx(0.75 * hard + 0.25 * divergence, rel=1e-5)


def test_a_teacher_sees_images_in_its_own_normalisation(trained):
    bundle = load_bundle(trained.folder, "cpu")
    settings = [
        "data.mean=[0.1,0.2,0.3]",
        "data.std=[0.5,0.6,0.7]",
        f"distill.teacher={trained.folder}",
        "data.image_size=16",
    ]
    recipe = load_recipe("resnet:widths=4:blocks_per_stage=1", settings)
    teacher = load_teacher(recipe, bundle.class_names, torch.device("cpu"))
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.data.mean, recipe.data.std))
    logits = teacher((images / 255 - mean) / std)
    np.testing.assert_allclose(logits.numpy(), bundle.logits(images.numpy()), atol=1e-4)
    assert load_teacher(load_recipe("default"), bundle.class_names, torch.device("cpu")) is None


def test_a_student_learns_from_a_run_and_wrong_teachers_are_refused(trained, tiny_recipe, digits_npz, tmp_path):
    settings = ["train.epochs=1", f"distill.teacher={trained.folder}", "distill.weight=1.0"]
    run = train(tiny_recipe, digits_npz, tmp_path / "student", device="cpu", settings=settings)
    plain = train(tiny_recipe, digits_npz, tmp_path / "plain", device="cpu", settings=settings[:1])
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    assert not np.allclose(load_bundle(run.folder).logits(images), load_bundle(plain.folder).logits(images), atol=1e-3)
    for teacher, more, message in (
        (tmp_path / "nowhere", [], r"distill\.teacher: .*nowhere: holds no bundle.* Train one first"),
        (trained.folder, ["data.image_size=8"], r"reads 16-pixel images, not 8\. Set data\.image_size=16"),
    ):
        with pytest.raises(UsageError, match=message):
            train(tiny_recipe, digits_npz, tmp_path / "x", device="cpu", settings=[f"distill.teacher={teacher}", *more])
        assert not (tmp_path / "x").exists()
    recipe = load_recipe(tiny_recipe, [f"distill.teacher={trained.folder}"])
    with pytest.raises(UsageError, match="knows other classes"):
        load_teacher(recipe, ("a", "b", "c"), torch.device("cpu"))


def test_a_resumed_student_finds_its_teacher_from_any_folder_and_knows_it_again(
    trained, tiny_recipe, digits_npz, tmp_path, monkeypatch
):
    shutil.copytree(trained.folder, tmp_path / "teacher")
    monkeypatch.chdir(tmp_path)
    settings = ["train.epochs=2", "distill.teacher=teacher"]
    whole = train(tiny_recipe, digits_npz, tmp_path / "whole", device="cpu", settings=settings)
    monkeypatch.setattr("resfit.training.execution.finish", lambda *arguments: None)  # as if killed before the bundle
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    monkeypatch.undo()
    monkeypatch.chdir("/")
    again = resume(run.folder)
    assert (again.bundle / "model.safetensors").read_bytes() == (whole.bundle / "model.safetensors").read_bytes()
    for file in (run.bundle / "config.json", run.summary_file):
        file.unlink()
    weights = tmp_path / "teacher" / "bundle" / "model.safetensors"
    weights.write_bytes((whole.bundle / "model.safetensors").read_bytes())
    run.update(status="interrupted")
    with pytest.raises(UsageError, match="the teacher has other weights than when the run began"):
        resume(run.folder)


def test_seeds_leave_nothing_behind_when_the_teacher_is_missing(tiny_recipe, digits_npz, tmp_path):
    with pytest.raises(UsageError, match=r"distill\.teacher"):
        train_seeds(tiny_recipe, digits_npz, tmp_path / "seeds", seeds=2, settings=[f"distill.teacher={tmp_path}"])
    assert not (tmp_path / "seeds").exists()


def test_a_teacher_of_other_images_is_refused_and_one_of_unknown_ones_said(
    trained, tiny_recipe, digits_npz, tmp_path, capsys
):
    refit = train(tiny_recipe, digits_npz, tmp_path / "refit", refit=True, device="cpu", settings=["train.epochs=1"])
    for place in (refit.folder, refit.bundle):
        with pytest.raises(UsageError, match="was trained on other images than this run"):
            train(tiny_recipe, digits_npz, tmp_path / "x", device="cpu", settings=[f"distill.teacher={place}"])
        assert not (tmp_path / "x").exists()
    bundle = shutil.copytree(trained.bundle, tmp_path / "alone")
    settings = [f"distill.teacher={bundle}", "train.epochs=1"]
    train(tiny_recipe, digits_npz, tmp_path / "y", device="cpu", settings=settings)
    assert "does not say what it was trained on" in capsys.readouterr().err
