"""Streamed predictions against brute force: one image at a time, Pillow's pixels, the unfolded network in torch alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from resfit.errors import DataError
from resfit.evaluation import chunks, stream
from resfit.evaluation.answers import predict
from resfit.evaluation.bundle import load_bundle, write_bundle
from resfit.evaluation.predict import views
from resfit.models.families import build
from resfit.recipefile import load_recipe

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def make_bundle(folder, network, tta="none", seed=0, below=1):
    settings = [
        f"network={network}",
        f"data.mean={list(MEAN)}",
        f"data.std={list(STD)}",
        f"tta={tta}",
        f"tta_below={below}",
    ]
    recipe = load_recipe("default", settings)
    weights = build(recipe.network, seed).state_dict()
    weights["head.weight"] *= 8  # far from even: a fault shows
    write_bundle(folder, recipe, weights, list("abcdefghij"))
    return folder


@pytest.fixture
def photos(tmp_path):
    """Return a folder of 41 PNG and JPEG files, some of another size, and an .npz of 6 images."""
    draw = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(41):
        pixels = draw.integers(0, 6 * (number + 1), (16 + number % 3, 16, 3), np.uint8)  # from dark to bright
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02}.{'png' if number % 2 else 'jpg'}")
    np.savez(tmp_path / "more.npz", images=draw.integers(0, 256, (6, 16, 16, 3), np.uint8))
    return tmp_path


@torch.inference_mode()
def brute_force(folder, photos, only_first=False) -> np.ndarray:
    bundle = load_bundle(folder, "cpu")
    size, rows = bundle.rule.size, []
    arrays = np.load(photos / "more.npz")["images"]
    pictures = [Image.open(path) for path in sorted((photos / "photos").iterdir())]
    for picture in [*pictures, *map(Image.fromarray, arrays)]:
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BICUBIC)
        pixels = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None] / 255
        inputs = (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
        one = bundle.model(inputs).softmax(1)
        mean = sum(weight * bundle.model(view) for weight, view in views(inputs, bundle.tta)).softmax(1)
        all_views = bundle.tta_below == 1 or one.max() < bundle.tta_below
        rows.append(mean if all_views and not only_first else one)
    return torch.cat(rows).numpy()


@pytest.mark.parametrize(
    ("chunk", "tta", "below"),
    [(1, "none", 1), (5, "flip", 1), (1000, "flip-shift", 1), (5, "flip-shift", 0.2), (1, "flip", 0.2)],
)
def test_the_same_answers_as_one_image_at_a_time(photos, chunk, tta, below, monkeypatch):
    folder = make_bundle(photos / "b", "resnet:widths=96,16:blocks_per_stage=1,1:image_size=16", tta, below=below)
    monkeypatch.setattr(chunks, "CPU_PIXELS", chunk * 16 * 16)
    monkeypatch.setattr(stream, "WORTH_FOLDING", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    answers = predict([folder], [photos / "photos", photos / "more.npz"], "cpu")
    expected = brute_force(folder, photos)
    np.testing.assert_allclose(answers.probs, expected, atol=1e-4)
    assert answers.ids[:2] == (str(photos / "photos" / "00.jpg"), str(photos / "photos" / "01.png"))
    assert answers.ids[-6:] == tuple("012345")
    assert expected.std(0).max() > 0.01  # the images are told apart
    seen = np.mean(brute_force(folder, photos, only_first=True).max(1) < below)
    assert seen == 1 if below == 1 else 0.1 < seen < 0.9  # a bound that divides them
    assert torch.get_num_threads() == 3  # as tune sets it, not as the pool's threads do


def test_networks_of_different_sizes_answer_together(photos, monkeypatch):
    monkeypatch.setattr(stream, "WORTH_FOLDING", 1)
    first = make_bundle(photos / "a", "resnet:widths=8,16:blocks_per_stage=1,1:image_size=16")
    other = make_bundle(photos / "b", "wrn:widths=8,16:blocks_per_stage=1,1:image_size=12", "flip", seed=1)
    answers = predict([first, other], [photos / "photos", photos / "more.npz"], "cpu")
    expected = (brute_force(first, photos) + brute_force(other, photos)) / 2
    np.testing.assert_allclose(answers.probs, expected, atol=1e-4)


def test_the_first_damaged_image_is_named(photos, monkeypatch):
    folder = make_bundle(photos / "b", "resnet:widths=8:blocks_per_stage=1:image_size=16")
    monkeypatch.setattr(chunks, "CPU_PIXELS", 4 * 16 * 16)
    for name in ("17.png", "30.jpg"):
        (photos / "photos" / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"17.png: the file is empty"):
        predict([folder], [photos / "photos"], "cpu")


def test_chunks_are_read_only_a_little_ahead():
    taken = 0

    def some():
        for number in range(50):
            assert number <= taken + 3
            yield (number,)

    for answer in chunks.in_order(lambda chunk: chunk[0] ** 2, some(), 2, lambda: None):
        assert answer == taken**2
        taken += 1
    assert taken == 50
