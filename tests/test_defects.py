"""The study of the reports' defects: its epochs are the loop's, and its statistics are right on readings made up by hand."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def defects():
    return _script("defects")


@pytest.fixture(scope="module")
def figures():
    return _script("defect_figures")


@pytest.fixture(scope="module")
def tables():
    return _script("defect_tables")


def _script(name):
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def test_its_epochs_are_those_of_the_loop(defects, trained, digits_npz, tmp_path):
    from resfit.recipefile import load_recipe

    splits = defects.load_splits(digits_npz, 16)
    recipe = load_recipe(trained.recipe_file)
    found = defects.record(tmp_path, "tiny", recipe, splits, 0, 2)
    assert list(found["val_accuracy"]) == [row["val_accuracy"] for row in trained.metrics]
    assert found["best"]["epoch"] == trained.summary["epoch"]
    count = len(splits["test"])
    assert found["test"].shape == found["augmented"].shape == (3, count)
    assert found["chosen"].shape == found["chosen_r5"].shape == (2, count)
    kept = (tmp_path / "tiny.npz").read_bytes()
    again = defects.record(tmp_path, "tiny", recipe, None, 0, 2)  # read, not trained
    assert (tmp_path / "tiny.npz").read_bytes() == kept
    np.testing.assert_array_equal(again["test"], found["test"])


def test_flattery_is_the_highest_less_the_chosen_accuracy(figures):
    test = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 0]], bool)  # 1, 3 and 2 of 4 right
    assert figures.flattery(test, 1) == 0
    assert figures.flattery(test, 2) == 0.25


def test_a_test_set_of_one_image_flatters_as_much_as_can_be(figures):
    test = np.array([[1] * 4 + [0] * 4, [0] * 4 + [1] * 4], bool)
    gap, optimism = figures.small_sets(test, 0, 1)
    # each image is its own best: 1, where the chosen epoch has half of them; of the other 7 that epoch has 3 right
    assert gap == pytest.approx(0.5)
    assert optimism == pytest.approx(1 - 3 / 7)


def test_where_no_epoch_depends_on_the_images_a_small_test_set_flatters_as_a_large_one(figures):
    test = np.array([[True] * 10, [False] * 10])
    assert figures.small_sets(test, 0, 5) == (0, 0)
    assert figures.small_sets(test, 1, 5) == (1, 0)


def test_draws_beside_clean_and_as_r5_did(figures):
    clean, draws = np.array([1, 1, 1, 0], bool), np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    found, mean, between = figures.twice(clean, draws)
    assert (found, mean) == (0.75, 0.375)
    assert between == pytest.approx(0.25 / 2**0.5)
    augmented = np.array([[1, 0, 0, 0], [1, 1, 1, 0]], bool)
    r5 = figures.as_r5_did(np.array([[0] * 4, [1] * 4], bool), augmented, draws)
    assert r5 == {"epoch": 1, "validation": 0.75, "test": [0.5, 0.25], "clean": 1.0, "difference": 0.375}


def test_a_sweep_goes_on_until_its_best_is_no_edge(defects, figures):
    assert defects.untried_neighbour({0.1: 0.5, 0.3: 0.6}) == 1.0
    assert defects.untried_neighbour({0.1: 0.7, 0.3: 0.6}) == 0.03
    assert defects.untried_neighbour({0.03: 0.1, 0.1: 0.7, 0.3: 0.6}) is None
    assert defects.untried_neighbour({3.0: 0.1, 10.0: 0.7}) is None  # the ladder's end
    sweep = [{"arm": "sgd", "rate": rate, "val_accuracy": value} for rate, value in ((0.1, 0.4), (0.3, 0.6), (1, 0.5))]
    sweep += [{"arm": "adam", "rate": rate, "val_accuracy": rate} for rate in (0.1, 0.01)]
    assert figures.best_rates(sweep) == {"sgd": (0.3, False), "adam": (0.1, True)}


def test_a_page_counts_epochs_from_one_and_writes_percent_and_points(tables):
    seed = {"seed": 4, "chosen_on_val": 2, "test_at_chosen": 0.6, "best_on_test": 4, "test_at_best": 0.61}
    sizes = [{"images": 1000, "flattery": {"mean": 0.02, "interval": [0.01, 0.03]}, "optimism": None}]
    made = tables.flattery({"seeds": [seed], "sizes": sizes, "value": 0.01, "interval": None}).splitlines()
    assert made[2] == "| 4 | 3 | 60.00% | 5 | 61.00% | 1.00 |"
    assert made[-1] == "| 1,000 | 2.00 (1.00 to 3.00) | – |"
