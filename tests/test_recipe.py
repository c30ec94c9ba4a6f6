"""Recipes: what is shipped, what is refused, and that a written recipe reads back as itself."""

from itertools import pairwise

import pytest

from resfit.budget import check_budget
from resfit.errors import UsageError
from resfit.models.families import cost
from resfit.recipe import parse_recipe, recipe_to_toml
from resfit.recipefile import SHIPPED, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_fits_its_budget_and_round_trips(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert (
        check_budget(cost(recipe.network), recipe.budget).ok == recipe.budget.enforce
    )  # what is not enforced is exceeded
    path = tmp_path / "again.toml"
    path.write_text(recipe_to_toml(recipe))
    assert load_recipe(path) == recipe


def test_network_without_a_recipe_takes_the_default_one():
    assert load_recipe("r5").network.se_reduction == 16
    assert load_recipe("resnet-32").network.blocks_per_stage == (5, 5, 5)
    assert load_recipe("resnet:widths=8,16:blocks_per_stage=1,1").name == "resnet"


def test_settings_by_key():
    settings = [
        "optim.name=adamw",
        "optim.lr=1e-3",
        "optim.betas=[0.8, 0.99]",
        "train.epochs=7",
        "budget.max_params=6M",
    ]
    recipe = load_recipe("default", [*settings, "augment.crop.mode=reflect", "network.dropout=0.25"])
    assert recipe.optim.name == "adamw"
    assert recipe.optim.lr == 1e-3
    assert recipe.optim.params == {"betas": (0.8, 0.99)}
    assert recipe.train.epochs == 7
    assert recipe.budget.max_params == 6_000_000
    assert recipe.augment["crop"] == {"padding": 4, "mode": "reflect"}
    assert recipe.network.dropout == 0.25
    assert recipe.network.widths == (64, 128, 256)


def test_defaults_of_a_network_follow_what_is_set():
    network = load_recipe("r5", ["network.widths=[8,16,32,64]", "network.se_reduction=4"]).network
    assert (network.widths, network.stem_width) == ((8, 16, 32, 64), 8)  # the stem is as wide as the first stage
    assert load_recipe("r1-4", ["network.widths=[8,16,32,64]"]).network.stem_width == 64  # its own, stated


def test_image_size_of_the_data_is_the_networks():
    recipe = load_recipe("resnet-20", ["data.image_size=24"])
    assert recipe.network.image_size == 24
    assert cost(recipe.network).macs < cost(load_recipe("resnet-20").network).macs


REFUSED = {
    "optim.lrr=0.1": "optim.lrr: no such key. Did you mean 'lr'?",
    "optim.lr=-1": "optim.lr: Input should be greater than 0, got -1.",
    "optim.lr=fast": "optim.lr: Input should be a valid number",
    "optim.name=sdg": "'sdg' is none of the optimizers. Did you mean 'sgd'?",
    "optim.momentun=0.9": "optim.momentun: no such key. Did you mean 'momentum'?",
    "optim.momentum=2": "optim.momentum: Input should be less than 1, got 2.",
    "augment.cropp.padding=2": "'cropp' is none of the augmentations. Did you mean 'crop'?",
    "augment.crop.mode=zero": "augment.crop.mode: Input should be 'reflect' or 'zeros'",
    "schedule.name=cosin": "'cosin' is none of the schedules. Did you mean 'cosine'?",
    "schedule.warmup_epochs=99": "schedule.warmup_epochs (99) must be below train.epochs (50). Shorten it too",
    "train.epoch=3": "train.epoch: no such key. Did you mean 'epochs'?",
    "trian.epochs=3": "trian: no such key. Did you mean 'train'?",
    "train=3": "train: ",
    "budget.max_params=lots": "'lots' is not a size",
    "budget.max_param=5M": "budget.max_param: ",
    "network.width=[8]": "width: is no field of a network. Did you mean 'widths'",
    "data.image_size=24": "pool: 8 is larger than the last map, of side 6",
    "data.std=[0.0, 1.0, 1.0]": "data.std: must be above 0",
    "name=../x": "name: ",
    "optim.lr": "write it as key=value",
    "train.epochs.more=1": "epochs is a single value",
    "train.epochs=0": "train.epochs: Input should be greater than or equal to 1, got 0.",
    "schedule.T_max=0": "schedule.T_max: no such key.",
    "schedule={name='warm-restarts', first_epochs=0}": "schedule.first_epochs: Input should be greater than or equal to 1",
    "schedule={name='multi-step', milestones=[30, 20]}": "schedule.milestones: must be one or more epochs, each later",
    "mix.cutmx.alpha=1": "'cutmx' is none of the mixes. Did you mean 'cutmix'?",
    "mix.mixup.alpha=0": "mix.mixup.alpha: Input should be greater than 0, got 0.",
    "mix={mixup={probability=0.7}, cutmix={probability=0.7}}": "mix.mixup and mix.cutmix: probabilities add up to 1.4",
    "augment.alternating-flip={}": "augment.flip and augment.alternating-flip undo each other",
    "distill.temperature=0": "distill.temperature: Input should be greater than 0, got 0.",
    "distill.weight=0.5": "distill.teacher is missing, and the other keys of distill do nothing without",
    "optim.sam_adaptive=true": "optim.sam_adaptive does nothing while optim.sam_rho is 0",
    "tta=mirror": "tta: Input should be 'none', 'flip' or 'flip-shift', got 'mirror'.",
}


def test_mixed_labels_for_a_loss_of_one_class_are_refused():
    with pytest.raises(UsageError, match=r"train\.loss 'cross-entropy' reads one class.*mix\.mixup makes mixtures"):
        load_recipe("default", ["mix.mixup.alpha=0.2", "train.loss=cross-entropy"])
    assert load_recipe("default", ["mix.mixup.alpha=0.2", "train.loss=soft-cross-entropy"]).mix["mixup"]["alpha"] == 0.2


def test_another_technique_takes_the_old_ones_parameters_away():
    recipe = load_recipe("r4-lighter", ["schedule.name=cosine", "optim.name=sgd"])
    assert recipe.schedule.params == {"end": 0.0}
    assert recipe.optim.params == {"momentum": 0.9, "nesterov": True}
    assert recipe.optim.lr == 1e-3
    settings = ["optim.momentum=0.5", "optim.name=muon"]
    assert load_recipe("r1-4", settings) == load_recipe("r1-4", settings[::-1])
    assert load_recipe("r1-4", settings).optim.params["momentum"] == 0.5


def test_techniques_are_switched_on_and_off():
    recipe = load_recipe("default", ["augment.cutout=true", "augment.flip=false", "augment.alternating-flip=true"])
    assert list(recipe.augment) == ["crop", "cutout", "alternating-flip"]
    assert recipe.augment["cutout"] == {"size": 16, "fill": 0}
    assert load_recipe("r3", ["mix.mixup=false"]).mix.keys() == {"cutmix"}
    with pytest.raises(
        UsageError, match=r"augment\.cutout: must be a table of parameters, \{\} for its defaults, got 4"
    ):
        load_recipe("default", ["augment.cutout=4"])


def test_a_misspelt_key_is_said_before_what_is_missing_for_it(tmp_path):
    (tmp_path / "mine.toml").write_text('bse = "r5"')
    with pytest.raises(UsageError, match=r"bse: no such key\."):
        load_recipe(tmp_path / "mine.toml")


def test_names_that_begin_alike_are_offered_once():
    with pytest.raises(UsageError, match=r"Did you mean 'r4-deeper' or 'r4-deeper-modern' or 'r4-lighter'\?"):
        load_recipe("r4")


def test_a_recipe_on_a_base(tmp_path):
    plain, mixed = load_recipe("r3-unmixed"), load_recipe("r3")
    assert plain.mix == {}
    assert plain.model_copy(update={"mix": mixed.mix, "name": "r3"}) == mixed
    (tmp_path / "mine.toml").write_text(
        'base = "r4-lighter"\n[schedule]\nname = "step"\n[augment.flip]\n[train]\nepochs = 3\n'
    )
    (tmp_path / "mine-longer.toml").write_text('base = "mine.toml"\n[train]\nepochs = 4\n')
    mine = load_recipe(tmp_path / "mine-longer.toml")
    assert (mine.name, mine.train.epochs, mine.train.batch_size) == ("mine-longer", 4, 128)
    assert mine.augment == {"flip": {}}  # replaced, so that the order is plain to see
    assert mine.schedule.params == {"every_epochs": 10.0, "gamma": 0.1}  # nothing of the plateau
    assert mine.optim == load_recipe("r4-lighter").optim


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("r4-lihter", "base: 'r4-lihter' is no shipped recipe.*Did you mean 'r4-lighter'"),
        ("loop.toml", "leads back to itself"),
    ],
)
def test_wrong_bases(base, message, tmp_path):
    path = tmp_path / "loop.toml"
    path.write_text(f'base = "{base}"')
    with pytest.raises(UsageError, match=message):
        load_recipe(path)


def test_the_ladder_differs_by_one_step_each():
    steps = [dict(load_recipe(name)) for name in (*(f"best-5m-{k}" for k in range(1, 6)), "best-5m")]
    changed = []
    for before, after in pairwise(steps):
        parts = {key for key in before if before[key] != after[key] and key != "name"}
        changed.append(parts)
    assert changed == [{"mix"}, {"augment"}, {"train"}, {"optim"}, {"tta"}]


@pytest.mark.parametrize(
    "name", [name for name in recipe_names() if name not in ("default", "digits", "planned", "speed-cpu")]
)
def test_headers_say_what_a_recipe_is_and_costs(name):
    head = [line for line in (SHIPPED / f"{name}.toml").read_text().splitlines() if line.startswith("#")]
    text, recipe = "\n".join(head), load_recipe(name)
    total = cost(recipe.network)
    assert "# Source: " in text
    assert f"# Command: resfit train {name} --data PATH" in text
    epochs = recipe.train.epochs
    assert f"# Cost: {total.params:,} params, {total.macs:,} macs an image, {epochs} epochs" in text


def test_no_modern_recipe_takes_more_epochs_than_its_report():
    names = [name for name in recipe_names() if name.endswith("-modern")]
    assert len(names) >= 6
    for name in names:
        ours, theirs = load_recipe(name), load_recipe(name.removesuffix("-modern"))
        assert ours.network == theirs.network
        assert ours.train.epochs <= theirs.train.epochs


@pytest.mark.parametrize(("setting", "message"), REFUSED.items(), ids=REFUSED)
def test_wrong_setting_is_one_line_that_names_the_key(setting, message):
    with pytest.raises(UsageError) as caught:
        load_recipe("default", [setting])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_files(tmp_path):
    with pytest.raises(UsageError, match=r"nowhere\.toml: cannot be read: No such file"):
        load_recipe(tmp_path / "nowhere.toml")
    path = tmp_path / "bad.toml"
    path.write_text("name = \nnetwork")
    with pytest.raises(UsageError, match=r"is not valid TOML: .*line 1"):
        load_recipe(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not UTF-8"):
        load_recipe(path)
    path.write_text('name = "x"')
    with pytest.raises(UsageError, match=r"bad\.toml: network: is missing"):
        load_recipe(path)
    with pytest.raises(UsageError, match=r"r4-lihter: no recipe or network of that name\. Did you mean 'r4-lighter'"):
        load_recipe("r4-lihter")


def test_number_of_further_errors_is_said():
    table = {"name": "x", "network": "resnet-8", "train": {"epochs": 0, "batch_size": 0}}
    with pytest.raises(UsageError, match=r"train\.epochs: .*\(1 more like this\.\)"):
        parse_recipe(table, "here")


def test_sizes_are_checked_against_the_size_that_data_sets():
    """Once a recipe could be trained whose resolved file could not be read again."""
    with pytest.raises(UsageError, match=r"resizing\.sizes: 24 is not below data\.image_size \(16\)"):
        load_recipe("speed-94", ["data.image_size=16"])
