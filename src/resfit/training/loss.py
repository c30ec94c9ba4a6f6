"""The loss: cross-entropy with class indices or distributions as targets, and what a teacher adds to it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from resfit.data.images import ImageSet
from resfit.errors import UsageError
from resfit.evaluation.bundle import load_bundle
from resfit.recipe import Distill, Recipe

Teacher = Callable[[Tensor], Tensor]


def make_loss(
    label_smoothing: float, distill: Distill, teacher: Teacher | None, class_weights: Tensor | None = None
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return `(logits (N, K), targets (N,) or (N, K), inputs) -> loss`, a mean over the batch.

    Label smoothing: Szegedy et al. 2015, arXiv 1512.00567. `inputs` are what the network saw, for the teacher to see too.
    class_weights (K,) multiply an image's loss by its class's, or a mixture's by the mean of its classes'; the sum is divided
    by the number of images, so that a batch in parts, or on many ranks, has the same gradient.
    """

    def loss_of(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        if class_weights is None:
            return cross_entropy(logits, targets, label_smoothing=label_smoothing)
        losses = cross_entropy(logits, targets, label_smoothing=label_smoothing, reduction="none")
        weights = class_weights[targets] if targets.ndim == 1 else targets @ class_weights
        return (losses * weights).mean()

    def distilled(logits: Tensor, targets: Tensor, inputs: Tensor) -> Tensor:
        assert teacher is not None
        own, learnt = loss_of(logits, targets, inputs), distillation(logits, teacher(inputs), distill.temperature)
        return (1 - distill.weight) * own + distill.weight * learnt

    return loss_of if teacher is None else distilled


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return the divergence of softened probabilities, mean over the batch, times temperature squared, which keeps its scale.

    Hinton et al. 2015, "Distilling the knowledge in a neural network", arXiv 1503.02531.
    """
    ours, theirs = (log_softmax(values.float() / temperature, 1) for values in (logits, teacher_logits))
    return kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def check_teacher(recipe: Recipe, train_set: ImageSet, device: torch.device) -> str | None:
    """Raise UsageError, before a folder is made, for a teacher that is missing, does not fit, or was trained on other images.

    Returns a warning where nobody knows what it was trained on: only on the student's own training images has it not seen
    those that are held out.
    """
    if recipe.distill.teacher is None:
        return None
    load_teacher(recipe, train_set.class_names, device)
    folder = Path(recipe.distill.teacher)
    file = next((f for f in (folder / "run.json", folder.parent / "run.json") if f.exists()), None)
    if file is None:
        return f"warning: {folder}: does not say what it was trained on; if on images held out here, accuracies flatter"
    if json.loads(file.read_text())["data"]["train"] != train_set.fingerprint:
        raise UsageError(
            f"distill.teacher: {folder}: was trained on other images than this run, perhaps on those held out here. "
            "Train one on the same data, and with --refit only where this run has it."
        )
    return None


def load_teacher(recipe: Recipe, class_names: Sequence[str], device: torch.device) -> Teacher | None:
    """Return `inputs (N, 3, H, W) -> logits (N, K)` of the recipe's teacher, or None where it names none.

    The inputs are normalised for the student; they are brought to the teacher's own mean and deviation. Raises UsageError
    where there is no such bundle, or one for other classes or another image size.
    """
    where = recipe.distill.teacher
    if where is None:
        return None
    try:
        bundle = load_bundle(where, str(device))
    except UsageError as error:
        raise UsageError(f"distill.teacher: {error} Train one first and set distill.teacher to its folder.") from error
    if bundle.class_names != tuple(class_names):
        raise UsageError(f"distill.teacher: {where}: knows other classes than the data. Train one on the same data.")
    if bundle.spec != replace(bundle.spec, image_size=recipe.network.image_size):
        size, ours = bundle.spec.image_size, recipe.network.image_size
        raise UsageError(
            f"distill.teacher: {where}: reads {size}-pixel images, not {ours}. Set data.image_size={size}."
        )
    assert recipe.data.mean is not None and recipe.data.std is not None, "the recipe is not resolved"
    pairs = list(zip(recipe.data.mean, recipe.data.std, bundle.mean, bundle.std, strict=True))
    scale = torch.tensor([std / their_std for _, std, _, their_std in pairs], device=device).view(1, -1, 1, 1)
    shift = torch.tensor([(m - tm) / ts for m, _, tm, ts in pairs], device=device).view(1, -1, 1, 1)

    @torch.no_grad()
    def teacher(inputs: Tensor) -> Tensor:
        logits: Tensor = bundle.model(inputs * scale + shift)
        return logits

    return teacher
