"""A last epoch that is a part of one, as airbench's 9.9 epochs have it."""

import pytest
import torch

from resfit.cli import main
from resfit.recipe import recipe_to_toml
from resfit.recipefile import load_recipe
from resfit.runs import open_run
from resfit.training.launch import resume, train
from resfit.training.schedule import total_steps
from runfiles import essence, train_killed


def test_whole_numbers_are_written_as_they_were(tiny_recipe):
    recipe = load_recipe(tiny_recipe, ["train.epochs=3.0"])
    assert "\nepochs = 3\n" in recipe_to_toml(recipe)
    assert recipe_to_toml(recipe) == recipe_to_toml(load_recipe(tiny_recipe, ["train.epochs=3"]))
    assert "\nepochs = 2.5\n" in recipe_to_toml(load_recipe(tiny_recipe, ["train.epochs=2.5"]))


@pytest.mark.parametrize("epochs", ["0.5", "inf", "nan", "-1", '"two"'])
def test_what_is_no_length_is_one_line(epochs, tiny_recipe, digits_npz, tmp_path, capsys):
    words = ["train", str(tiny_recipe), "--data", str(digits_npz), "--out", str(tmp_path / "run")]
    assert main([*words, "--set", f"train.epochs={epochs}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "train.epochs: Input should be" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("epochs", "steps"), [(1, 4), (2.5, 10), (2.26, 9), (2.01, 8)])
def test_the_rate_ends_with_the_last_step(epochs, steps, tiny_recipe, digits_npz, tmp_path):
    """240 images, 64 a step: four steps an epoch."""
    assert total_steps(epochs, 4) == steps
    settings = [f"train.epochs={epochs}", "schedule={name='cosine', end=0.0}"]
    run = train(tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    assert [row["step"] for row in run.metrics] == [*range(4, steps, 4), steps]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], run.recipe.optim.lr)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    assert [row["lr"] for row in run.metrics] == pytest.approx([rates[row["step"] - 1] for row in run.metrics])
    assert "val_accuracy" in run.metrics[-1]
    seen = (steps // 4) * 240 + steps % 4 * 64
    assert run.summary["images_per_second"] == pytest.approx(seen / run.summary["train_seconds"])


@pytest.mark.parametrize("when", [3, 8, 9, 10])
def test_killed_in_the_part_it_ends_with_the_same_bytes(when, tiny_recipe, digits_npz, tmp_path, monkeypatch):
    settings = ["train.epochs=2.5"]
    whole = train(tiny_recipe, digits_npz, tmp_path / "whole", device="cpu", settings=settings)
    assert whole.metrics[-1]["step"] == 10

    train_killed(monkeypatch, when, tiny_recipe, digits_npz, tmp_path / "run", device="cpu", settings=settings)
    assert essence(resume(tmp_path / "run")) == essence(whole)
    assert open_run(tmp_path / "run").info["status"] == "finished"
