"""benchmarks/photographs.py: the patches are a photograph's own, and no pixel of one is in two splits."""

import importlib
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resfit.data.checking import check

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "photographs.py"
SIZES = {(48, 48), (72, 36), (36, 72)}
GREY = {"brick", "camera", "grass", "gravel", "moon"}
COLOUR = {"astronaut", "china", "coffee", "flower", "hubble_deep_field", "ihc", "motorcycle_left", "retina", "rocket"}


@pytest.fixture(scope="module")
def patches(tmp_path_factory, need):
    """The data set: split, class, left, top, pixels of each image; and the folder."""
    need("skimage")
    folder = tmp_path_factory.mktemp("photographs")
    script = runpy.run_path(str(SCRIPT))
    script["write_patches"](folder, script["photographs"]())
    found = []
    for file in sorted(folder.rglob("*.png")):
        left, top, _ = file.stem.split("-")
        found.append((file.parts[-3], file.parts[-2], int(left), int(top), np.asarray(Image.open(file))))
    return folder, found


def photograph(name):
    """The photograph of this name, as Pillow reads it from the package's files."""
    package, place = ("sklearn", "datasets/images") if name in ("china", "flower") else ("skimage", "data")
    (file,) = (Path(importlib.import_module(package).__file__).parent / place).glob(f"{name}.*")
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("name", sorted(GREY | COLOUR))
def test_no_pixel_is_in_two_splits(patches, name):
    whole = photograph(name)
    times = {split: np.zeros(whole.shape[:2], int) for split in ("train", "val", "test")}
    for split, label, left, top, pixels in patches[1]:
        if label == name:
            place = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
            np.testing.assert_array_equal(pixels, whole[place])
            times[split][place] += 1
    assert (sum(np.minimum(count, 1) for count in times.values()) <= 1).all()
    assert times["val"].max() == times["test"].max() == 1  # each image counts once
    columns = {split: np.flatnonzero(count.any(0)) for split, count in times.items()}
    assert columns["val"][0] - columns["train"][-1] > 72
    assert columns["test"][0] - columns["val"][-1] > 72


def test_classes_and_sizes(patches):
    folder, found = patches
    kinds = {(split, label): set() for split in ("train", "val", "test") for label in GREY | COLOUR}
    counts = dict.fromkeys(kinds, 0)
    for split, label, _, _, pixels in found:
        kinds[split, label].add(pixels.shape[1::-1])
        counts[split, label] += 1
        assert pixels.ndim == (2 if label in GREY else 3)
    assert all(sizes == SIZES for sizes in kinds.values())
    assert {count for (split, _), count in counts.items() if split == "train"} == {60}
    assert all(10 <= count <= 24 for (split, _), count in counts.items() if split != "train")
    assert {path.name for path in folder.iterdir()} == {"train", "val", "test"}
    assert check(folder, near=False)["problems"] == []  # no image twice, none flat, no class too small
