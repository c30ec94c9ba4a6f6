"""The study of the reports' defects: its epochs are the loop's, and its statistics are right on readings made up by hand."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def defects():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("defects", ROOT / "benchmarks" / "defects.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.pop(0)


def test_its_epochs_are_those_of_the_loop(defects, trained, digits_npz, tmp_path):
    from resfit.recipe import load_recipe

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
