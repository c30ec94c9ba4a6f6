"""Photographs of any shape: one rule from training to every answer; `data.resize`."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

import resfit
from resfit.cli import main
from resfit.evaluation.answers import predict

BY_PILLOW = {
    "squash": lambda image: image.resize((16, 16), Image.Resampling.BICUBIC),
    "crop": lambda image: ImageOps.fit(image, (16, 16), Image.Resampling.BICUBIC),
    "pad": lambda image: ImageOps.pad(image, (16, 16), Image.Resampling.BICUBIC, "gray"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, digit_arrays):
    """Class folders of digits on wide and tall frames."""
    folder, frames = tmp_path_factory.mktemp("photos"), ((40, 16), (16, 30), (20, 20))
    for number, (pixels, label) in enumerate(zip(*digit_arrays, strict=True)):
        (folder / str(label)).mkdir(exist_ok=True)
        frame = Image.new("RGB", frames[number % 3], "navy")
        digit = Image.fromarray(pixels).resize((14, 14))
        frame.paste(digit, ((frame.width - 14) // 2, (frame.height - 14) // 2))
        frame.save(folder / str(label) / f"{number}.png")
    return folder


@pytest.mark.parametrize(("resize", "mode"), [("squash", "squash"), ("crop", "center"), ("pad", "border")])
def test_training_and_prediction_see_the_same_pixels(photos, tiny_recipe, tmp_path, resize, mode):
    words = ["--data", str(photos), "--out", str(tmp_path / "run"), "--set", f"data.resize={resize}"]
    assert main(["train", str(tiny_recipe), *words, "--set", "train.epochs=1"]) == 0
    run = resfit.load(tmp_path / "run")
    config = json.loads((tmp_path / "run/bundle/config.json").read_text())
    assert config["preprocessing"]["resize"] == resize
    assert config["pretrained_cfg"]["crop_mode"] == mode
    files = sorted(photos.rglob("*.png"))[:9]
    shown = np.stack([np.asarray(BY_PILLOW[resize](Image.open(file))).transpose(2, 0, 1) for file in files])
    answers = predict([tmp_path / "run"], list(map(str, files)), "cpu")
    np.testing.assert_allclose(answers.probs, run.probs(shown), atol=1e-5)


def test_a_rule_that_is_not_known_is_one_line(photos, tiny_recipe, tmp_path, capsys):
    words = ["--data", str(photos), "--out", str(tmp_path / "run"), "--set", "data.resize=stretch"]
    assert main(["train", str(tiny_recipe), *words]) == 2
    error = capsys.readouterr().err
    assert "data.resize" in error
    assert "'squash', 'crop' or 'pad'" in error
