"""Near-duplicates planted among real photographs: found; other pictures of the same photographs: not."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from resfit.data.duplicates import NEAR, find_duplicates, pair_distances
from resfit.data.rows import take_rows


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """300 crops that hardly overlap, of two photographs of 640 x 427 pixels, each 40 wide and reduced to 32."""
    arrays = [np.asarray(image) for image in load_sample_images().images]
    cut = [a[y : y + 40, x : x + 40] for a in arrays for y in range(0, 387, 40) for x in range(0, 600, 40)]
    pictures = [Image.fromarray(piece).resize((32, 32), Image.Resampling.BICUBIC) for piece in cut]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def changed(image: np.ndarray, kind: str) -> np.ndarray:
    picture = Image.fromarray(image.transpose(1, 2, 0))
    if kind == "jpeg":
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=60)
        picture = Image.open(buffer).convert("RGB")
    elif kind == "mirrored":
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif kind == "dark":
        picture = ImageEnhance.Brightness(picture).enhance(0.6)
    elif kind == "contrast":
        picture = ImageEnhance.Contrast(picture).enhance(1.4)
    elif kind == "moved":
        picture = picture.transform((32, 32), Image.Transform.AFFINE, (1, 0, 2, 0, 1, -1))
    elif kind == "cropped":
        picture = picture.crop((1, 1, 31, 31)).resize((32, 32), Image.Resampling.BICUBIC)
    return np.asarray(picture).transpose(2, 0, 1)


KINDS = ("same", "jpeg", "mirrored", "dark", "contrast", "moved", "cropped")


def test_planted_duplicates_are_found_and_nothing_else(crops):
    busy = np.argsort(-crops.std((1, 2, 3)))[:70]  # sky is like sky
    references = np.delete(crops, busy[40:55], 0)
    planted = busy[:35]
    queries = [changed(crops[row], KINDS[i % 7]) for i, row in enumerate(planted)]
    queries = np.stack(queries + [crops[row] for row in busy[40:55]])  # the last 15 are not in the references
    found = find_duplicates(queries, references)
    places = np.flatnonzero(~np.isin(np.arange(len(crops)), busy[40:55]))
    truth = {i: int(np.flatnonzero(places == row)[0]) for i, row in enumerate(planted)}
    pairs = dict(zip(found.queries.tolist(), found.references.tolist(), strict=True))
    assert all(truth.get(query) == reference for query, reference in pairs.items())
    missed = {KINDS[i % 7] for i in truth if i not in pairs}
    assert missed <= {"moved"}  # of a fine texture: its coarse picture changes too
    by_query = dict(zip(found.queries.tolist(), found.distances.tolist(), strict=True))
    assert {query for query, distance in by_query.items() if distance == 0} == set(range(0, 35, 7))
    assert all(0 < by_query[i] <= NEAR for i in range(2, 35, 7))  # mirrored alone is near, however exact
    assert list(found.distances) == sorted(found.distances)


def test_rows_of_a_cache_larger_images_and_none(crops):
    queries = take_rows(crops, np.array([8, 3]))
    found = find_duplicates(queries, take_rows(crops, np.arange(3, 12)))
    assert sorted(zip(found.queries.tolist(), found.references.tolist(), strict=True)) == [(0, 5), (1, 0)]
    busy = crops[np.argsort(-crops.std((1, 2, 3)))[:6]]
    large = busy.repeat(2, 2).repeat(2, 3)
    noise = np.random.default_rng(0).integers(-3, 4, large.shape)
    found = find_duplicates(np.clip(large + noise, 0, 255).astype(np.uint8), large)
    assert found.queries.tolist() == found.references.tolist() or sorted(found.queries.tolist()) == list(range(6))
    assert all(found.distances > 0)
    empty = find_duplicates(crops[:4], 255 - crops[100:110])
    assert len(empty.queries) == 0


def test_flat_images_are_only_exact():
    flat = np.stack([np.full((3, 32, 32), value, np.uint8) for value in (10, 200)])
    found = find_duplicates(flat, flat[1:])
    assert found.queries.tolist() == [1]
    assert found.distances.tolist() == [0]


def test_distance_is_that_of_its_definition(crops):
    """The best shift by brute force with numpy's own correlation."""
    left, right = crops[[5]].astype(np.float32), np.roll(crops[[5]], (1, -2), (2, 3)).astype(np.float32)
    right += np.random.default_rng(0).normal(0, 8, right.shape).astype(np.float32)

    def edges(image: np.ndarray) -> np.ndarray:
        smooth = np.zeros_like(image)
        padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), "edge")
        for y, a in enumerate((1, 2, 1)):
            for x, b in enumerate((1, 2, 1)):
                smooth += a * b * padded[:, y : y + 32, x : x + 32]
        return np.concatenate([smooth[:, :-1, 1:] - smooth[:, :-1, :-1], smooth[:, 1:, :-1] - smooth[:, :-1, :-1]])

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))

    best = 2.0
    for down in range(-3, 4):
        for across in range(-3, 4):

            def cut(a: np.ndarray, down: int, across: int) -> np.ndarray:
                h, w = a.shape[1:]
                return a[:, max(0, down) : h + min(0, down), max(0, across) : w + min(0, across)]

            one, other = cut(left[0], down, across), cut(right[0], -down, -across)
            one, other = one - one.mean((1, 2), keepdims=True), other - other.mean((1, 2), keepdims=True)
            of_edges = cosine(cut(edges(left[0]), down, across), cut(edges(right[0]), -down, -across))
            best = min(best, 1 - (cosine(one, other) + of_edges) / 2)
    assert best < NEAR
    assert pair_distances(left, right)[0] == pytest.approx(best, rel=1e-3)
