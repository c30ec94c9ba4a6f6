"""Arrays in .npz, the digits and the competition pickle: what is read, and every shape that is refused."""

import os
import pickle
import sys

import numpy as np
import pytest

from resfit.data.images import PixelRule
from resfit.data.sources import load_split
from resfit.data.unlabelled import load_unlabelled
from resfit.errors import MissingExtraError

RULE = PixelRule(6)


def noise(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def save(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


@pytest.fixture
def npz(tmp_path):
    return tmp_path / "set.npz"


def test_layouts_of_pixels_are_one_set(npz):
    images, labels = noise(40, 6, 6, 3), np.arange(40) % 4
    found = []
    for form in (images, images.transpose(0, 3, 1, 2), np.asfortranarray(images)):
        for given in (labels, labels[:, None], labels.astype(np.uint8)):
            found.append(load_split(save(npz, images=form, labels=given), "trainval", RULE))
    assert len({f.fingerprint for f in found}) == 1
    assert all((f.images == found[0].images).all() for f in found)
    assert found[0].class_names == ("0", "1", "2", "3")
    test = load_split(npz, "test", RULE)
    together = np.concatenate([found[0].images, test.images])
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in images.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 1), (1, 6, 6)])
def test_grey(npz, shape):
    images = noise(40, *shape)
    found = load_split(save(npz, images=images, labels=np.arange(40) % 4), "trainval", RULE)
    assert (found.images[:, 0] == found.images[:, 2]).all()
    assert found.images.shape == (36, 3, 6, 6)


@pytest.mark.parametrize("names", [("{}_images", "{}_labels"), None])
def test_splits_by_name(npz, names):
    arrays = {}
    for split, count in (("train", 30), ("val", 6), ("test", 9)):
        image, label = (n.format(split) for n in names) if names else (f"x_{split}", f"y_{split}")
        arrays |= {image: noise(count, 5, 7, 3, seed=count), label: (np.arange(count) % 3)[:, None]}
    save(npz, **arrays, class_names=["a", "b", "c"])
    sizes = [len(load_split(npz, s, RULE)) for s in ("train", "val", "test", "trainval")]
    assert sizes == [30, 6, 9, 36]
    assert load_split(npz, "test", RULE).class_names == ("a", "b", "c")
    assert (load_split(npz, "test", RULE).labels == np.arange(9) % 3).all()


def test_resized_like_files(npz, tmp_path, make):
    pixels = np.stack([make.noise(i, 9, 12) for i in range(8)])
    from_array = load_split(save(npz, train_images=pixels, train_labels=np.arange(8) % 2), "trainval", RULE)
    for i in range(8):
        path = tmp_path / f"{i}.png"
        path.write_bytes(make.encode(pixels[i]))
        assert (load_unlabelled([path], RULE).images[0] == from_array.images[i]).all()


def test_refusals(npz, one_line):
    good, labels = noise(12, 6, 6, 3), np.arange(12) % 3
    objects = np.empty(12, object)
    cases = [
        ({"images": good.astype(np.float32), "labels": labels}, "float32"),
        ({"images": good.astype(np.int64), "labels": labels}, "int64"),
        ({"images": noise(12, 6, 6, 4), "labels": labels}, "(12, 6, 6, 4)"),
        ({"images": noise(12, 6), "labels": labels}, "(12, 6)"),
        ({"images": noise(0, 6, 6), "labels": labels}, "(0, 6, 6)"),
        ({"images": noise(12, 0, 6), "labels": labels}, "(12, 0, 6)"),
        ({"images": good, "labels": labels[:-1]}, "11 labels"),
        ({"images": good, "labels": labels.astype(float)}, "float64"),
        ({"images": good, "labels": np.eye(12, dtype=int)}, "(12, 12)"),
        ({"images": good, "labels": labels - 1}, "-1"),
        ({"images": good, "labels": labels * 2}, "label 1"),
        ({"images": good, "labels": labels + 1}, "label 0"),
        ({"images": good, "labels": np.where(labels == 2, 2**62, labels)}, "class numbers"),
        ({"images": good, "labels": labels, "class_names": ["a", "b"]}, "2 classes"),
        ({"images": good, "labels": labels, "class_names": ["a", "a", "b"]}, "class_names"),
        ({"images": objects, "labels": labels}, "objects"),
        ({"images": good, "labels": objects}, "objects"),
        ({"images": good}, "labels"),
        ({"train_images": good}, "train_labels"),
        ({"x_test": good, "y_test": labels}, "x_train"),
        ({"something": good}, "something"),
        ({"x_train": good, "y_train": labels % 2, "x_test": good, "y_test": labels}, "2 classes"),
    ]
    for arrays, expected in cases:
        save(npz, **arrays)
        message = one_line(load_split, npz, "test" if "x_test" in arrays else "train", RULE)
        assert expected in message
        assert str(npz) in message


def test_damaged(npz, one_line):
    whole = save(npz, images=noise(12, 6, 6, 3), labels=np.arange(12) % 3).read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 5):
        npz.write_bytes(whole[:cut])
        assert str(npz) in one_line(load_split, npz, "train", RULE)
    middle = bytearray(whole)
    middle[200:230] = bytes(30)
    npz.write_bytes(middle)
    assert "damaged" in one_line(load_split, npz, "train", RULE)

    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(npz) + ".ran",))

    npz.write_bytes(pickle.dumps(Evil()))
    one_line(load_split, npz, "train", RULE)
    assert not os.path.exists(str(npz) + ".ran")


def test_unlabelled_npz(npz, one_line):
    images = noise(12, 6, 6, 3)
    found = load_unlabelled([save(npz, images=images)], RULE)
    assert found.labels is None
    assert found.class_names == ()
    assert found.ids == tuple(map(str, range(12)))
    assert (found.images == images.transpose(0, 3, 1, 2)).all()
    assert "x_train" in one_line(load_unlabelled, [save(npz, x_train=images)], RULE)


def test_digits():
    parts = {s: load_split("digits", s, PixelRule(8)) for s in ("train", "val", "test", "trainval")}
    assert len(parts["train"]) + len(parts["val"]) + len(parts["test"]) == 1797
    assert len(parts["trainval"]) == len(parts["train"]) + len(parts["val"])
    assert parts["train"].images[:].max() == 255
    assert parts["train"].class_names == tuple("0123456789")
    assert abs(len(parts["test"]) - 180) <= 5
    assert abs(len(parts["val"]) - 180) <= 5


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"resfit\[digits\]") as caught:
        load_split("digits", "train", PixelRule(8))
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("data", ["flat", "nhwc"])
@pytest.mark.parametrize("ids", [None, "array", "list", "bytes"])
@pytest.mark.parametrize("keys", [str, str.encode])
def test_competition(tmp_path, make, data, ids, keys):
    rows = make.cifar_rows(3, 5)
    value = {"data": rows if data == "flat" else rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy()}
    given = {"array": np.arange(7, 12), "list": [7, 8, 9, 10, 11], "bytes": [b"7", b"8", b"9", b"10", b"11"]}
    if ids:
        value["ids"] = given[ids]
    path = tmp_path / "cifar_test_nolabel.pkl"
    path.write_bytes(pickle.dumps({keys(k): v for k, v in value.items()}))
    found = load_unlabelled([path], PixelRule(32))
    assert (found.images.reshape(5, -1) == rows).all()
    assert found.labels is None
    assert found.ids == (("7", "8", "9", "10", "11") if ids else ("0", "1", "2", "3", "4"))


def test_competition_refusals(tmp_path, make, one_line):
    path = tmp_path / "c.pkl"
    rows = make.cifar_rows(3, 5)
    for value, expected in (
        ({"images": rows}, "no array 'data'"),
        ({"data": [1]}, "no array 'data'"),
        ({"data": rows[:, :5]}, "(5, 5)"),
        ({"data": rows.astype(float)}, "float64"),
        ({"data": rows, "ids": [1]}, "'ids'"),
        ({"data": rows, "ids": 3}, "'ids'"),
    ):
        path.write_bytes(pickle.dumps(value))
        assert expected in one_line(load_unlabelled, [path], RULE)
    path.write_bytes(pickle.dumps(os.getcwd))
    assert "run code" in one_line(load_unlabelled, [path], RULE)
    assert "predict" in one_line(load_split, path, "train", RULE)
