"""Spaces: what they hold, the recipes of their points, and every mistake of a space file in one line."""

import json
from pathlib import Path

import pytest

from resfit.errors import UsageError
from resfit.models.families import cost
from resfit.recipefile import load_recipe
from resfit.study.space import Range, load_space, space_names

COUNTS = json.loads((Path(__file__).parents[1] / "golden" / "counts.json").read_text())

SPACE = """
base = "default"
[network]
family = "resnet"
widths = [16, 32]
blocks_per_stage = [1, 1]
[budget]
max_params = "50k"
[vary]
"network.widths" = {low = 8, high = 32, step = 8}
"network.blocks_per_stage" = {low = 1, high = 2}
"network.stages" = [2, 3]
"network.kernel" = [3, 5]
"optim.lr" = {low = 0.01, high = 1.0, log = true}
"optim.name" = ["sgd", "adamw"]
"schedule.name" = ["cosine", "step"]
"""


def written(folder, text):
    file = folder / "space.toml"
    file.write_text(text)
    return file


def test_a_point_makes_a_recipe(tmp_path):
    space = load_space(written(tmp_path, SPACE))
    point = {"network.stages": 3, "network.kernel": 5, "optim.lr": 0.03, "optim.name": "adamw"}
    point |= {f"network.widths.{n}": 8 * (n + 1) for n in range(3)} | {
        f"network.blocks_per_stage.{n}": 1 for n in range(3)
    }
    recipe = space.recipe(point)
    assert recipe.network.widths == (8, 16, 24)
    assert recipe.network.strides == (1, 2, 2)
    assert recipe.network.stem_width == 8  # follows the first stage, as a spec's default does
    assert (recipe.optim.name, recipe.optim.lr, recipe.budget.max_params) == ("adamw", 0.03, 50_000)
    assert "momentum" not in recipe.optim.params
    assert recipe.name == "space"


def test_a_range_is_every_stages_own(tmp_path):
    space = load_space(written(tmp_path, SPACE))
    assert space.vary["network.widths"] == Range(low=8, high=32, step=8)
    assert [key for key in space.first() if key.startswith("network.widths")] == [
        f"network.widths.{n}" for n in range(3)
    ]


def test_settings_go_over_the_file(tmp_path):
    space = load_space(written(tmp_path, SPACE), ["train.epochs=2", "search.seeds=5", "search.pruning=hyperband"])
    assert space.recipe(space.first()).train.epochs == 2
    assert (space.search.seeds, space.search.pruning) == (5, "hyperband")
    assert space.text() != load_space(written(tmp_path, SPACE)).text()


def test_shipped_spaces_load():
    assert set(space_names()) == {"r1", "r2", "small"}
    for name in space_names():
        space = load_space(name)
        assert space.recipe(space.first())


def test_r2_holds_table_1_with_its_own_counts():
    rows = {row.label: row.recipe for row in load_space("r2").rows()}
    for number in range(1, 8):
        name = f"r2-{number}"
        assert rows[name] == load_recipe(name)
        assert cost(rows[name].network).params == COUNTS["networks"][name]["params"]
    assert cost(rows["resnet:widths=32,64,128,256,512:blocks_per_stage=1,1,1,1,1:pool=2"].network).params == 4_904_618
    changed = {label: recipe for label, recipe in rows.items() if label.startswith("network.")}
    assert len(changed) == 7
    final = load_recipe("r2-6").network
    for label, recipe in changed.items():
        key = label.removeprefix("network.").partition("=")[0]
        different = [name for name in ("widths", "blocks_per_stage", "kernel", "shortcut_kernel", "pool")
                     if getattr(recipe.network, name) != getattr(final, name)]  # fmt: skip
        assert different == [key]


def test_r1_holds_the_iterations_by_their_own_recipes():
    rows = load_space("r1", ["train.epochs=1"]).rows()
    assert [row.label for row in rows] == ["r1-baseline", "r1-1", "r1-2", "r1-3", "r1-4"]
    assert [row.recipe.train.epochs for row in rows] == [1] * 5
    assert list(rows[1].recipe.augment) == list(load_recipe("r1-1").augment)


def test_one_at_a_time_lists_each_change_once(tmp_path):
    text = SPACE.replace("[vary]", '[search]\nmode = "one-at-a-time"\n[vary]').partition('"network.widths"')[0]
    text += '"optim.lr" = [0.1, 0.2]\n"train.batch_size" = {low = 64, high = 128, step = 64}\n'
    labels = [row.label for row in load_space(written(tmp_path, text)).rows()]
    assert labels == ["base", "optim.lr=0.2", "train.batch_size=64"]


WRONG = {
    "": "vary: is missing or empty",
    "[vary]": "vary: is missing or empty",
    "[vary]\n'optim.lr' = []": "vary.optim.lr: is empty",
    "[vary]\n'optim.lr' = 0.1": "vary.optim.lr: 0.1 does not vary",
    "[vary]\n'optim.lr' = [0.1, 0.1]": "vary.optim.lr: names a value twice",
    "[vary]\n'optim.lr' = {low = 1.0, high = 0.1}": "vary.optim.lr: is empty: low is 1.0, high is 0.1",
    "[vary]\n'optim.lr' = {low = 0.1}": "vary.optim.lr: high: is missing",
    "[vary]\n'optim.lr' = {low = 0.1, high = 'x'}": "vary.optim.lr: high",
    "[vary]\n'optim.lr' = {low = 0.1, high = 1.0, stepp = 2}": "stepp: no such key. Did you mean 'step'",
    "[vary]\n'optim.lr' = {low = 0.0, high = 1.0, log = true}": "log needs low above 0",
    "[vary]\n'optim.lr' = {low = 0.1, high = 1.0, step = 0.1, log = true}": "step must be above 0, and goes without log",
    "[vary]\n'optim.lr' = {low = 0.1, high = nan}": "is empty",
    "[vary]\n'optim.lrr' = [0.1]": "vary.optim.lrr: with 0.1: space: optim.lrr: no such key",
    "[vary]\n'optim.lr' = [-1.0]": "vary.optim.lr: with -1.0: space: optim.lr",
    "[vary]\n'network.kernel' = [3, 4]": "vary.network.kernel: with 4: space: kernel: must be odd",
    "[vary]\n'network.image_size' = [16, 32]": "the data decides it. Set data.image_size",
    "[vary]\nrecipe = ['r1-44']": "base: 'r1-44' is no shipped recipe",
    "[vary]\n'network.stages' = [2, 3]": "vary.network.stages: network.widths and network.blocks_per_stage must vary too",
    "[search]\nmod = 'search'\n[vary]\n'optim.lr' = [0.1]": "search.mod: no such key. Did you mean 'mode'",
    "[search]\nmode = 'random'\n[vary]\n'optim.lr' = [0.1]": "search.mode",
    "[search]\nseeds = 0\n[vary]\n'optim.lr' = [0.1]": "search.seeds",
    "search = 3\n[vary]\n'optim.lr' = [0.1]": "search: must be a table",
    "[optm]\nlr = 0.1\n[vary]\n'optim.lr' = [0.1]": "optm: no such key. Did you mean 'optim'",
    "[vary\n": "is not valid TOML",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=range(len(WRONG)))
def test_mistakes_of_a_space_are_one_line(tmp_path, text, words):
    with pytest.raises(UsageError) as error:
        load_space(written(tmp_path, f'base = "default"\n{text}'))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_space_that_is_not_there():
    with pytest.raises(UsageError, match=r"smal: no space of that name. Did you mean 'small'"):
        load_space("smal")
    with pytest.raises(UsageError, match=r"nowhere.toml: cannot be read"):
        load_space("nowhere.toml")
