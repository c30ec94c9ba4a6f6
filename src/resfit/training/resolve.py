"""What the data decides about a recipe: classes, image size, and the mean and deviation of the pixels."""

from dataclasses import replace
from typing import Literal

import numpy as np

from resfit.data.feed import pieces
from resfit.data.images import ImageSet
from resfit.data.problems import FEWEST, UNEQUAL
from resfit.data.rows import Images
from resfit.errors import DataError, UsageError
from resfit.models.families import cost
from resfit.models.spec import ModelSpec, resized
from resfit.recipe import Channel3, Recipe

SHOWN = 5  # small classes that are named


def resolve(recipe: Recipe, train_set: ImageSet) -> Recipe:
    """Return the recipe with what the data decides filled in: classes, image size, mean and std of the training pixels,
    balanced class weights. Raises DataError for one class, UsageError for weights of another number of classes.
    """
    if len(train_set.class_names) < 2:
        raise DataError(f"{train_set.source}: has one class only. Give two or more.")
    size = train_set.images.shape[-1]
    spec = resized(replace(recipe.network, classes=len(train_set.class_names)), size)
    mean, std = recipe.data.mean, recipe.data.std
    if mean is None or std is None:
        found_mean, found_std = pixel_statistics(train_set.images)
        mean, std = mean or found_mean, std or found_std
    data = recipe.data.model_copy(update={"image_size": size, "mean": mean, "std": std})
    train = recipe.train.model_copy(update={"class_weights": class_weights(recipe, train_set)})
    return recipe.model_copy(update={"network": spec, "data": data, "train": train})


def class_weights(recipe: Recipe, train_set: ImageSet) -> Literal["none", "balanced"] | tuple[float, ...]:
    """Return "none", or one weight for each class: King, Zeng 2001, "Logistic regression in rare events data"."""
    weights, classes = recipe.train.class_weights, len(train_set.class_names)
    if weights == "balanced":
        counts = np.maximum(class_counts(train_set), 1)
        return tuple(round(len(train_set) / (classes * int(count)), 6) for count in counts)
    if weights != "none" and len(weights) != classes:
        raise UsageError(
            f"train.class_weights: {len(weights)} given, and there are {classes} classes. Give one for each class, or"
            ' "balanced".'
        )
    return weights


def class_counts(images: ImageSet) -> np.ndarray:
    """Return the number of images of each class, int64 (K,)."""
    assert images.labels is not None
    return np.bincount(images.labels, minlength=len(images.class_names))


def balance_warnings(recipe: Recipe, train_set: ImageSet) -> list[str]:
    """Return what must be said of small and uneven classes before training starts, a line each."""
    counts, names = class_counts(train_set), train_set.class_names
    small = [f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < FEWEST]
    lines = []
    if small:
        more = f" and {len(small) - SHOWN} more" if len(small) > SHOWN else ""
        lines.append(
            f"warning: fewer than {FEWEST} training images of {', '.join(small[:SHOWN])}{more}: their accuracy says little"
        )
    if counts.max() > UNEQUAL * max(counts.min(), 1) and recipe.train.class_weights == "none":
        most, least = names[counts.argmax()], names[counts.argmin()]
        lines.append(
            f"warning: {counts.max():,} training images of {most}, {counts.min():,} of {least}: look at the balanced accuracy;"
            " --set train.class_weights=balanced weighs classes alike"
        )
    return lines


def network_text(spec: ModelSpec) -> str:
    """Return what one image costs, what the stem makes of its size, and what a pool leaves unread of the last map."""
    total, size, last = cost(spec), spec.image_size, spec.stages()[-1].side
    text = f"{total.macs:,} macs and {total.peak:,} bytes of ram (int8) for one {size}x{size} image"
    if spec.stem_stride > 1:
        text += f"; the stem shrinks it by {spec.stem_stride}"
    if spec.pool and (read := last // spec.pool * spec.pool) < last:
        text += f"; pool={spec.pool} reads {read} of the last map's {last} rows and columns, pool=0 reads all"
    return text


def pixel_statistics(images: Images) -> tuple[Channel3, Channel3]:
    """Return mean and standard deviation per channel of uint8 images (N, 3, H, W) as pixels in [0, 1], to four decimals.

    From exact integer counts of the 256 values, so that neither order nor threads can change a digit.
    """
    counts = np.zeros((3, 256), np.int64)
    for _, piece in pieces(images):
        for channel in range(3):
            counts[channel] += np.bincount(piece[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255

    def of_channel(channel: int) -> tuple[float, float]:
        shares = counts[channel] / counts[channel].sum()
        mean = float((shares * levels).sum())
        std = float(np.sqrt((shares * (levels - mean) ** 2).sum()))
        return round(mean, 4), max(round(std, 4), 1e-4)  # images of one colour have no deviation to divide by

    (r, r_std), (g, g_std), (b, b_std) = map(of_channel, range(3))
    return (r, g, b), (r_std, g_std, b_std)
