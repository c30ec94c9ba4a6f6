"""Test-time views: which they are, their weights, and that a bundle remembers them."""

import json
import shutil

import numpy as np
import pytest
import torch

from resfit.errors import UsageError
from resfit.evaluation.bundle import load_bundle
from resfit.evaluation.config import VIEWS
from resfit.evaluation.predict import predict_logits, views


def test_views_and_weights():
    x = torch.arange(2 * 3 * 5 * 5.0).view(2, 3, 5, 5)
    for name, count in VIEWS.items():
        found = views(x, name)
        assert len(found) == count
        assert sum(weight for weight, _ in found) == pytest.approx(1)
    shifted = [view for weight, view in views(x, "flip-shift") if weight == 0.125]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    corners = [padded[:, :, :5, :5], padded[:, :, 2:, 2:]]
    expected = [side for corner in corners for side in (corner, corner[..., ::-1])]
    for ours, theirs in zip(shifted, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_logits_are_the_weighted_mean(trained):
    model = load_bundle(trained.folder, "cpu").model
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 16, 16), dtype=np.uint8)
    plain, mirrored = (predict_logits(model, im, (0.5,) * 3, (0.2,) * 3) for im in (images, images[..., ::-1].copy()))
    both = predict_logits(model, images, (0.5,) * 3, (0.2,) * 3, "flip")
    np.testing.assert_allclose(both, (plain + mirrored) / 2, atol=1e-5)


def test_a_bundle_remembers_its_views(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    file = folder / "bundle" / "config.json"
    config = json.loads(file.read_text())
    assert config["tta"] == "none"
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    plain = load_bundle(folder, "cpu").logits(images)
    file.write_text(json.dumps(config | {"tta": "flip"}))
    flipped = load_bundle(folder, "cpu").logits(images)
    np.testing.assert_allclose(flipped, load_bundle(folder, "cpu").logits(images[..., ::-1].copy()), atol=1e-5)
    assert not np.allclose(flipped, plain, atol=1e-3)
    file.write_text(json.dumps(config | {"tta": "spin"}))
    with pytest.raises(UsageError, match="tta 'spin' is none of none, flip, flip-shift"):
        load_bundle(folder, "cpu")
