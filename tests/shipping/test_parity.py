"""Parity: the file answers as the network does, in every family, for the reports' networks, and in int8 once trained."""

import numpy as np
import pytest
import torch

from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.evaluation.predict import predict_logits
from resfit.evaluation.runtime import load_onnx
from resfit.models.families import build
from resfit.models.networks import network
from resfit.models.spec import parse_spec
from resfit.shipping import export as exporting
from resfit.shipping.export import export
from resfit.shipping.gate import compare
from resfit.shipping.graph import make_graph, plain
from resfit.training.launch import train

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
RECIPE = """
[data]
image_size = 8
val_fraction = 0.5
[optim]
lr = 0.05
[schedule]
warmup_epochs = 0.5
[train]
epochs = 3
batch_size = 32
"""

pytestmark = pytest.mark.usefixtures("extras")


def pixels(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def parity_of(spec, images: np.ndarray):
    """Export a network with random weights, its BatchNorms as after training, and compare the file with it."""
    from resfit.shipping import onnx

    model, generator = build(spec).eval(), torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
    expected = predict_logits(model, images, MEAN, STD)
    made = onnx.to_onnx(make_graph(model, MEAN, STD, spec.image_size), spec.image_size)
    config = {"class_names": [], "preprocessing": {"size": spec.image_size, "resize": "squash", "filter": "bicubic"}}
    data = onnx.encode(made, exporting._metadata(config | {"tta": "none", "tta_below": 1.0}))
    return compare(load_onnx(data).network_logits(images), expected, expected.argmax(1), "float32")


@pytest.mark.parametrize(  # those that the reports' networks, below, leave out
    "text",
    [
        "resnet:widths=8,12:blocks_per_stage=1,1:conv_bias=true:shortcut_kernel=2:dropout=0.2:stochastic_depth=0.2:image_size=16",
        "separable:widths=8,12:blocks_per_stage=1,1:image_size=16",
        "resnet:widths=8,12:blocks_per_stage=1,1:image_size=16:stem_stride=4",
        "wrn:widths=8,12:blocks_per_stage=2,1:stem_width=8:image_size=16:stem_stride=4",
        "whitened:widths=8,12:blocks_per_stage=1,1:image_size=16",
    ],
)
def test_every_family_answers_the_same(text):
    parity = parity_of(parse_spec(text), pixels(40, 16))
    assert not parity.wrong, parity


@pytest.mark.parametrize("name", ["r1-4", "r3", "r4-lighter", "r5"])
def test_the_reports_networks_answer_the_same(name):
    parity = parity_of(network(name), pixels(8, 32))
    assert not parity.wrong, parity


@pytest.mark.parametrize(
    "network",
    [
        "resnet:widths=48,96:blocks_per_stage=1,1:se_reduction=8",
        "resnet:widths=48,96:blocks_per_stage=1,1:strides=1,1:stem_stride=4",
        "whitened:widths=48,96:blocks_per_stage=1,1",
    ],
)
def test_int8_is_small_and_as_accurate(tmp_path, network):
    recipe = tmp_path / "small.toml"
    recipe.write_text(f'name = "small"\nnetwork = "{network}"\n{RECIPE}')
    run = train(recipe, "digits", tmp_path / "run", device="cpu")
    value = export(run.folder, int8=True)
    assert value["file"].endswith("model-int8.onnx")
    full, small = (row["bytes"] for row in value["rows"])
    assert full / small > 3.3  # of 0.7 MB; with five million parameters it is 3.9
    parity = value["parity"]
    assert parity["network_accuracy"] > 0.8  # else there is nothing to lose
    assert parity["network_accuracy"] - parity["accuracy"] <= 0.005
    assert parity["max_difference"] > 0


def test_calibration_takes_the_same_images_in_any_order(digits_npz):
    from resfit.shipping.quantize import CALIBRATION, calibration_images

    train = load_split(digits_npz, "train", PixelRule(16))
    shuffled = train.take(np.random.default_rng(0).permutation(len(train)))
    first, again = (calibration_images(images) for images in (train, shuffled))
    assert len(first) == min(CALIBRATION, len(train))
    assert sorted(image.tobytes() for image in first) == sorted(image.tobytes() for image in again)


def test_winograd_is_left_behind():
    model = build(parse_spec("resnet:widths=96:blocks_per_stage=1:image_size=16"))
    assert all(type(module) is not type(model.stem) for module in plain(model).modules())
    assert type(model.stem).__name__ == "Conv3x3"  # the original keeps it
