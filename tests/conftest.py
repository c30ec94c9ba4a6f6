"""Fixtures that every test may use: folders of its own for cache and ledger, and small real images (handwritten digits)."""

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share two cores


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("RESFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RESFIT_STATE", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def need() -> Callable[[str], None]:
    """Skip a test whose program or package is missing; under RESFIT_NO_SKIP=1, as in CI, that is a failure."""

    def need(name: str) -> None:
        if shutil.which(name) is None and importlib.util.find_spec(name) is None:
            message = f"{name} is not installed"
            pytest.fail(message) if os.environ.get("RESFIT_NO_SKIP") == "1" else pytest.skip(message)

    return need


@pytest.fixture(scope="session")
def digit_arrays() -> tuple[np.ndarray, np.ndarray]:
    """Real images: 300 handwritten digits of three classes, uint8 (300, 8, 8), and their labels (300,)."""
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=3)
    return np.round(digits.images[:300] * 255 / 16).astype(np.uint8), digits.target[:300].astype(np.int64)


@pytest.fixture(scope="session")
def digits_npz(tmp_path_factory, digit_arrays) -> Path:
    """The same digits as an .npz source of one pool."""
    images, labels = digit_arrays
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    np.savez(path, images=images, labels=labels)
    return path


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory) -> Path:
    """A recipe that trains in a second: every moving part on, 16-pixel images, uneven last batch."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(
        """
name = "tiny"
network = "resnet:widths=8,16:blocks_per_stage=1,1:dropout=0.1:image_size=16"
[augment.crop]
padding = 2
mode = "reflect"
[optim]
lr = 0.05
clip_norm = 5.0
[schedule]
warmup_epochs = 0.5
[train]
epochs = 3
batch_size = 64
label_smoothing = 0.1
ema_decay = 0.9
"""
    )
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_recipe, digits_npz):
    """One finished run of the tiny recipe; tests that change it must copy it first."""
    from resfit.training.launch import train

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    saved = dict(os.environ)
    os.environ["RESFIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    try:
        return train(tiny_recipe, digits_npz, folder, device="cpu")
    finally:
        os.environ.clear()
        os.environ.update(saved)
