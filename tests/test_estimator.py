"""Classifier, in scikit-learn's own hands where it can be."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import cross_val_score

import resfit
from resfit.errors import DataError, UsageError

SETTINGS = ("train.epochs=20", "train.batch_size=32", "optim.lr=0.05")
NETWORK = "resnet:widths=8,16:blocks_per_stage=1,1:image_size=16"


@pytest.fixture(scope="module")
def fitted(digit_arrays):
    images, labels = digit_arrays
    names = np.array(["zero", "one", "two"])[labels]
    return resfit.Classifier(NETWORK, settings=SETTINGS, device="cpu").fit(images[:250], names[:250])


def test_learns_and_speaks_in_the_labels_given(fitted, digit_arrays):
    images, labels = digit_arrays
    names = np.array(["zero", "one", "two"])[labels]
    predicted = fitted.predict(images[250:])
    assert set(predicted) <= {"zero", "one", "two"}
    assert fitted.score(images[250:], names[250:]) == accuracy_score(names[250:], predicted)
    assert fitted.score(images[250:], names[250:]) >= 0.8
    probs = fitted.predict_proba(images[250:])
    assert probs.shape == (50, 3)
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-5)
    assert list(fitted.classes_) == ["one", "two", "zero"]
    assert fitted.classes_[probs.argmax(1)].tolist() == predicted.tolist()
    assert fitted.run_.summary["val"]["n"] > 0


def test_every_layout_of_images_is_the_same_image(fitted, digit_arrays):
    grey = digit_arrays[0][:5]
    rgb = np.repeat(grey[..., None], 3, axis=3)
    expected = fitted.predict_proba(grey)
    for images in (grey[..., None], rgb, rgb.transpose(0, 3, 1, 2)):
        np.testing.assert_allclose(fitted.predict_proba(images), expected, atol=1e-6)


def test_clone_and_params(fitted):
    copy = clone(resfit.Classifier("resnet-8", seed=3, refit=True))
    assert copy.get_params()["seed"] == 3
    assert copy.set_params(seed=4).seed == 4
    with pytest.raises(UsageError, match="Did you mean 'seed'"):
        copy.set_params(seeds=1)
    with pytest.raises(UsageError, match="not fitted"):
        copy.predict(np.zeros((1, 8, 8), np.uint8))


def test_in_scikit_learns_cross_validation(digit_arrays):
    images, labels = digit_arrays
    classifier = resfit.Classifier(NETWORK, settings=("train.epochs=1",), device="cpu")
    assert is_classifier(classifier)
    scores = cross_val_score(classifier, images, labels, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()


def test_a_fitted_one_can_be_pickled(fitted, digit_arrays):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(digit_arrays[0][:9]), fitted.predict(digit_arrays[0][:9]))


def test_a_recipe_takes_no_settings():
    with pytest.raises(UsageError, match="settings: a Recipe is complete"):
        resfit.Classifier(resfit.load_recipe("resnet-8"), settings=["train.epochs=1"]).fit([], [])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((4, 8, 8), np.float32), [0, 1, 0, 1], "X: of type float32, not uint8"),
        (np.zeros((4, 64), np.uint8), [0, 1, 0, 1], "X: of shape"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1], "y: of shape"),
        (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1], "distinct images"),
    ],
)
def test_wrong_arrays(images, labels, message):
    with pytest.raises(DataError, match=message):
        resfit.Classifier(NETWORK).fit(images, labels)


def test_python_api(trained, digit_arrays):
    assert resfit.cost(resfit.network("r5")).params == 4_398_890
    assert resfit.build(resfit.network("resnet-8")).training
    bundle = resfit.load(trained.folder, "cpu")
    assert bundle.probs(np.zeros((2, 3, 16, 16), np.uint8)).shape == (2, 3)
    for wrong in (
        np.zeros((2, 3, 16, 16)),
        np.zeros((2, 16, 16, 3), np.uint8),
        np.zeros((0, 3, 16, 16), np.uint8),
        None,
        [1],
    ):
        with pytest.raises(DataError, match="Give uint8 of shape"):
            bundle.probs(wrong)


def test_one_class_is_refused():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    with pytest.raises(DataError, match="one class only"):
        resfit.Classifier(NETWORK, device="cpu").fit(images, [1] * 20)
