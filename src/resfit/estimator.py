"""Classifier: the library in the manner of scikit-learn, on arrays of images in memory."""

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resfit.data.arrays import list_pixels, to_pixels
from resfit.data.images import ImageSet, PixelRule
from resfit.data.listing import read
from resfit.data.splits import hold_out
from resfit.errors import DataError, UsageError, nearest
from resfit.evaluation.bundle import load_bundle
from resfit.evaluation.config import pixel_rule
from resfit.recipe import Recipe
from resfit.recipefile import as_recipe
from resfit.training.launch import start


class Classifier:
    """Fit a residual network to images and predict, with scikit-learn's methods and conventions.

    recipe: a Recipe, a file, or a name of `resfit list`. settings: recipe keys, as `--set` takes them. refit: train on all
    images and keep the last weights; otherwise a stratified validation split chooses the epoch. out: the run folder; without
    it the run lies in a temporary folder as long as the classifier lives.

    Attributes after `fit`: classes_ (K,), the labels as given; run_, the run; bundle_, the network.
    """

    def __init__(
        self,
        recipe: str | Path | Recipe = "default",
        *,
        settings: Sequence[str] = (),
        seed: int = 0,
        refit: bool = False,
        device: str = "auto",
        out: str | Path | None = None,
    ) -> None:
        self.recipe = recipe
        self.settings = settings
        self.seed = seed
        self.refit = refit
        self.device = device
        self.out = out

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the constructor."""
        return {name: getattr(self, name) for name in ("recipe", "settings", "seed", "refit", "device", "out")}

    def set_params(self, **params: Any) -> "Classifier":
        """Set parameters of the constructor; raises UsageError for an unknown one."""
        for name, value in params.items():
            if name not in self.get_params():
                raise UsageError(f"Classifier: {name}: no such parameter.{nearest(name, self.get_params())}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        """Say to scikit-learn, which alone calls this, that it is a classifier."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        inputs = InputTags(two_d_array=False, three_d_array=True)
        return Tags("classifier", TargetTags(required=True), None, ClassifierTags(), input_tags=inputs)

    def fit(self, X: Any, y: Any) -> "Classifier":
        """Train on images X, uint8 (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W), and labels y (N,) of any type.

        Raises DataError for arrays that do not fit, UsageError for a recipe that is wrong.
        """
        recipe = as_recipe(self.recipe, self.settings)
        if recipe.data.group_by is not None:
            raise UsageError("data.group_by: arrays have no ids to find groups in. Leave it out.")
        labels = np.asarray(y)
        if labels.ndim != 1 or len(labels) != len(X):
            raise DataError(f"y: of shape {labels.shape} for {len(X)} images. Give one label an image.")
        self.classes_, indices = np.unique(labels, return_inverse=True)
        names = [str(label) for label in self.classes_]
        images = _image_set(X, indices.astype(np.int64), names, pixel_rule(recipe))
        train_set, val_set = images, None
        if not self.refit:
            assert images.labels is not None
            held = hold_out(images.keys, images.labels, images.class_names, recipe.data.val_fraction, "X")
            train_set, val_set = images.take(np.flatnonzero(~held)), images.take(np.flatnonzero(held))
        out = self.out
        if out is None:
            temporary = tempfile.mkdtemp(prefix="resfit-")
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
            out = Path(temporary) / recipe.name
        self.run_ = start(recipe, train_set, val_set, out, seed=self.seed, device=self.device)
        self.bundle_ = load_bundle(self.run_.folder, self.device)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities (N, K) float32, columns in the order of classes_."""
        if not hasattr(self, "bundle_"):
            raise UsageError("Classifier: is not fitted yet. Call fit(X, y) first.")
        return self.bundle_.probs(_image_set(X, None, self.bundle_.class_names, self.bundle_.rule))

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each image, (N,), of the type given to `fit`."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])

    def score(self, X: Any, y: Any) -> float:
        """Return the accuracy, a fraction, on images X with labels y."""
        return float((self.predict(X) == np.asarray(y)).mean())


def _image_set(X: Any, labels: np.ndarray | None, names: Sequence[str], rule: PixelRule) -> ImageSet:
    listing = list_pixels(to_pixels(np.asarray(X), "X"), labels, names, None, "X: image ")
    return read(listing, range(listing.count), rule, lambda shape: np.empty(shape, np.uint8), "X")
