"""`resfit train FOLDER`: what is planned of images and a time, and what a person may get wrong."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resfit import planner
from resfit.cli import main
from resfit.data.sources import open_source
from resfit.errors import UsageError
from resfit.models.families import cost
from resfit.planner import candidates, first_batch, fit, fits, modelled_seconds, wanted_epochs
from resfit.recipefile import load_recipe
from resfit.runs import Run
from resfit.training.timelimit import TimeLimit


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of 60 pictures of 150 x 130 pixels: stripes along, stripes across."""
    folder, draw = tmp_path_factory.mktemp("photographs") / "my stripes!", np.random.default_rng(0)
    stripes = np.where(np.arange(150) // 8 % 2, 200, 40)
    for name, plane in (("along", np.tile(stripes[:130, None], (1, 150))), ("across", np.tile(stripes, (130, 1)))):
        (folder / name).mkdir(parents=True)
        for number in range(30):
            noisy = (plane[..., None] + draw.integers(-30, 30, (130, 150, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{number}.png")
    return folder


def test_batches_are_small_where_images_are_few():
    batches = [first_batch(count) for count in (20, 600, 1100, 5000, 10**4, 10**6)]
    assert batches == sorted(batches)
    assert batches[0] == 16
    assert batches[-1] == 512
    for count, batch in zip((5000, 10**4), batches[3:5], strict=True):  # the largest with 700 steps in eight epochs
        assert batch == max(b for b in (16, 32, 64, 128, 256, 512) if 8 * count / b >= 700)


def test_more_is_wanted_of_costlier_networks_and_fewer_images():
    assert wanted_epochs(9 * 20_000 * 32**2, 32, 10**6, 128) == 15
    assert wanted_epochs(4 * 20_000 * 32**2, 32, 10**6, 128) == 10
    assert wanted_epochs(100, 32, 10**6, 128) == 8
    assert wanted_epochs(20_000 * 32**2, 32, 1000, 16) == pytest.approx(11.2)  # 700 steps
    assert wanted_epochs(20_000 * 32**2, 32, 10, 16) == 300


@pytest.mark.parametrize(("side", "stages"), [(16, 3), (32, 3), (64, 4), (96, 4), (128, 5)])
def test_candidates_are_within_the_budget_the_costliest_first(side, stages):
    budget = load_recipe("default", ["budget.max_params=900k", "budget.max_macs=400M"]).budget
    specs = candidates(budget, side, 3)
    assert all(cost(one).params <= 900_000 and cost(one).macs <= 400e6 for one in specs)
    assert all((one.image_size, one.classes, len(one.widths)) == (side, 3, stages) for one in specs)
    macs = [cost(one).macs for one in specs]
    assert macs == sorted(macs, reverse=True)
    assert len(specs) > 2


def test_a_budget_too_small_for_them_has_what_design_finds():
    budget = load_recipe("default", ["budget.max_params=5k"]).budget
    specs = candidates(budget, 32, 10)
    assert specs
    assert all(cost(one).params <= 5000 for one in specs)
    assert "whitened" not in {one.family for one in specs}


@pytest.mark.parametrize("seconds", [1.0, 30.0, 1000.0, 1e5])
def test_the_network_is_the_costliest_that_can_be_trained_often_enough(seconds, monkeypatch):
    """The speed is made up, and twice what the rule's model says: the choice is then plain arithmetic."""
    monkeypatch.setattr(planner, "measured_seconds", lambda recipe, *_: 2 * modelled_seconds(recipe))
    recipe, images = load_recipe("planned", ["train.batch_size=128"]), (2000, 200)
    chosen = planner.choose_network(recipe, 10, images, "cpu", 1.9, TimeLimit(seconds))
    tried = {one: recipe.model_copy(update={"network": one}) for one in candidates(recipe.budget, 32, 10)}
    kept = [
        one
        for one, each in tried.items()
        if wanted_epochs(cost(one).macs, 32, 2000, 128) * (2000 + 0.3 * 200) * 2 * modelled_seconds(each)
        <= 0.98 * seconds
    ]
    quickest = min(tried, key=lambda one: modelled_seconds(tried[one]))
    assert chosen.network == (kept[0] if kept else quickest)


def test_images_are_as_large_as_the_time_has_room_for(photographs):
    opened, recipe = open_source(photographs), load_recipe("planned")
    sides = [planner.choose_side(recipe, opened, 3.0, TimeLimit(seconds)) for seconds in (0.1, 60.0, 600.0, 1e6)]
    assert sides == sorted(sides)
    assert sides[0] == 32
    assert sides[-1] == 128  # the shorter side has 130


def test_a_batch_doubles_while_it_pays(monkeypatch):
    per_image = {16: 4.0, 32: 3.0, 64: 2.0, 128: 1.9, 256: 0.1}
    monkeypatch.setattr(planner, "measured_seconds", lambda recipe, *_: 1e-6 * per_image[recipe.train.batch_size])
    recipe = load_recipe("planned", ["train.batch_size=16", "optim.lr=0.0125"])
    place = planner.choose_device("cpu")

    def chosen(seconds, keep_rate=False):
        return planner.choose_batch(recipe, place, TimeLimit(seconds), keep_rate)

    found = chosen(60.0)
    assert found.train.batch_size == 64  # 128 is hardly faster
    assert found.optim.lr == pytest.approx(0.05)
    assert chosen(60.0, keep_rate=True).optim.lr == 0.0125
    assert chosen(0.06).train.batch_size == 16  # there is no time for 700 steps of 32 images
    monkeypatch.setattr(planner, "memory_limit", lambda place: 0)
    assert chosen(60.0).train.batch_size == 16


@pytest.fixture(scope="module")
def planned(photographs, tmp_path_factory):
    """The folder, trained with nothing said but a time."""
    here = pytest.MonkeyPatch()
    here.chdir(tmp_path_factory.mktemp("here"))
    here.setenv("RESFIT_CACHE", "cache")
    assert main(["train", str(photographs), "--time-limit", "20s", "--set", "budget.max_params=200k"]) == 0
    yield Path("runs/my-stripes-1").absolute()
    here.undo()


def test_a_folder_is_enough(planned, photographs):
    run = Run(planned)
    assert run.info["status"] == "finished"
    assert run.info["source"] == str(photographs)
    assert run.info["params"] <= 200_000
    assert run.info["time_limit"]["seconds"] == 20.0
    assert run.recipe.network.image_size % 32 == 0
    assert run.recipe.network.classes == 2
    assert run.summary["val"]["n"] == 6
    assert (run.bundle / "model.safetensors").exists()


def test_its_recipe_trains_again_without_a_clock(planned, photographs, tmp_path):
    words = ["train", planned / "recipe.toml", "--data", photographs, "--out", tmp_path / "again"]
    assert main([*map(str, words), "--set", "train.epochs=1"]) == 0
    assert Run(tmp_path / "again").info.get("time_limit") is None


def test_what_is_set_is_not_planned(photographs, tmp_path):
    settings = ["network=resnet-8", "data.image_size=24", "train.batch_size=12", "optim.lr=0.02"]
    run = fit(photographs, tmp_path / "run", time_limit=8.0, device="cpu", settings=settings)
    recipe = run.recipe
    assert recipe.network == load_recipe("resnet-8", ["data.image_size=24", "network.classes=2"]).network
    assert (recipe.data.image_size, recipe.train.batch_size, recipe.optim.lr) == (24, 12, 0.02)


@pytest.mark.parametrize("side", [12, 20, 224])
def test_any_size_that_is_set_has_a_plan(side):
    recipe = planner._plain("x", [f"data.image_size={side}"], {"data.image_size"})
    assert recipe.network.image_size == side
    assert cost(recipe.network).params <= 5_000_000
    kept = planner._plain("x", ["network.kernel=5"], {"network"})
    assert kept.network.kernel == 5


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ([], 2, "train: what to train on is missing. Give a folder of images, or a recipe and --data PATH."),
        (["r5"], 2, "train: r5: say what to train on: --data PATH."),
        (["resnet:widths=8,16:blocks_per_stage=1,1"], 2, "blocks_per_stage=1,1: say what to train on: --data PATH."),
        (["--init", "runs/x"], 2, "train: --init: say what to train on: --data PATH."),
        (["no-such-folder"], 4, "no-such-folder: neither a path that exists nor a known name."),
        (["r5", "--data", "digits", "--preset", "quick"], 2, "--preset: plans the network too. Leave the recipe out"),
        (["digits", "--preset", "slow"], 2, "invalid choice: 'slow'"),
        (["digits", "--seeds", "2"], 2, "--seeds: a time is planned for one run."),
        (
            ["r5", "--data", "digits", "--seeds", "2", "--time-limit", "1h"],
            2,
            "--seeds: a time is planned for one run.",
        ),
        (["digits", "--time-limit", "soon"], 2, "'soon' is not a time. Write it as 5ms, 30s, 20m or 2h."),
        (
            ["digits", "--set", "train.epochs=3"],
            2,
            "train.epochs: follows from the time. Leave it out, or train a recipe",
        ),
        (["r5", "--data", "digits", "--set", "train.epochs=3", "--time-limit", "1h"], 2, "train.epochs: follows"),
        (["digits", "--time-limit", "20ms"], 3, "time limit: 0.0 s: one epoch of 1,439 images, and val, take about"),
        (["digits", "--set", "budget.max_params=10"], 3, "network"),
    ],
)
def test_mistakes_are_one_line(words, code, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == code
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("resfit: ")]
    assert len(said) == 1
    assert line in said[0]
    assert not (tmp_path / "runs").exists()


def test_a_preset_that_is_none_is_refused():
    with pytest.raises(UsageError, match=r"preset: 'slow' is not known\. Use quick, balanced, best"):
        fit("digits", preset="slow")


def test_many_processes_have_no_plan(monkeypatch):
    from resfit.training import timelimit
    from resfit.training.ranks import Ranks

    monkeypatch.setattr(timelimit, "present", lambda: Ranks(0, 2))
    with pytest.raises(UsageError, match=r"time limit: is for one process"):
        timelimit.as_limit(60.0, ())


def test_looks_at_val_are_counted():
    recipe = load_recipe("planned")
    epochs = wanted_epochs(cost(recipe.network).macs, 32, 10**5, 512)
    assert fits(recipe, (10**5, 0), 0.001, epochs * 100 + 1)
    assert not fits(recipe, (10**5, 10**4), 0.001, epochs * 100 + 1)
    assert fits(recipe, (10**5, 10**4), 0.001, epochs * 103 + 1)
