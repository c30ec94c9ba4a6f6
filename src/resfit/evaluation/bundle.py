"""The bundle: weights (safetensors) and config.json with all that prediction needs; written by training, read by `load`."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from resfit import durable
from resfit.budget import check_budget
from resfit.data.images import ImageSet, PixelRule
from resfit.data.rows import Images
from resfit.errors import DataError, UsageError
from resfit.evaluation.card import BESIDE
from resfit.evaluation.config import BundleConfig, bundle_folder, pixel_rule, read_config, unreadable
from resfit.evaluation.metrics import softmax
from resfit.evaluation.predict import predict_logits
from resfit.machine import choose_device
from resfit.models.families import build, cost, layers
from resfit.models.spec import ModelSpec, spec_to_dict
from resfit.recipe import Recipe


@dataclass(frozen=True)
class Bundle:
    """A trained network with its classes and preprocessing."""

    spec: ModelSpec
    model: nn.Module
    class_names: tuple[str, ...]
    rule: PixelRule
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tta: str
    tta_below: float
    config: dict[str, Any]

    def logits(self, images: ImageSet | Images) -> np.ndarray:
        """Return logits (N, K) float32 of images, uint8 (N, 3, size, size) as the pixel rule makes them."""
        pixels = images.images if isinstance(images, ImageSet) else images
        size, shape = self.rule.size, list(getattr(pixels, "shape", ()))
        if getattr(pixels, "dtype", None) != np.uint8 or shape[1:] != [3, size, size] or 0 in shape:
            kind = f"{getattr(pixels, 'dtype', type(pixels).__name__)} of shape {tuple(shape)}"
            raise DataError(f"images: {kind}. Give uint8 of shape (N, 3, {size}, {size}), pixels 0 to 255.")
        return predict_logits(self.model, pixels, self.mean, self.std, self.tta, self.tta_below)

    def probs(self, images: ImageSet | Images) -> np.ndarray:
        """Return probabilities (N, K) float32; see `logits`."""
        return softmax(self.logits(images))


def write_bundle(folder: Path, recipe: Recipe, weights: dict[str, Tensor], class_names: Sequence[str]) -> None:
    """Write model.safetensors and config.json of a resolved recipe to `folder`; what was there of other weights is removed."""
    total = cost(recipe.network)
    config = {
        "format": "resfit-bundle-1",
        "name": recipe.name,
        "spec": spec_to_dict(recipe.network),
        "class_names": list(class_names),
        "preprocessing": asdict(pixel_rule(recipe)) | {"mean": recipe.data.mean, "std": recipe.data.std},
        "tta": recipe.tta,
        "tta_below": recipe.tta_below,
        "params": total.params,
        "macs": total.macs,
        "budget": asdict(recipe.budget),
        "within_budget": check_budget(total, recipe.budget).ok,
        **_timm_keys(recipe, class_names),
    }
    for name in ("model.onnx", *BESIDE):  # `export` and `write_card` make them, of the weights that are replaced here
        durable.remove(folder / name, must=True)
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    durable.write_bytes(folder / "model.safetensors", save(plain, metadata={"format": "pt"}))
    durable.write_json(folder / "config.json", config)


def _timm_keys(recipe: Recipe, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the keys that timm gives a config.json of the Hub, so that whoever reads those finds the pixels' rule.

    They are those of huggingface.co/timm's own files. The architecture is none of timm's: it is the family under our name.
    """
    spec = recipe.network
    try:
        rows = layers(spec)
    except UsageError:  # a family from outside that does not list them
        rows = []
    convs, linears = ([row.name for row in rows if row.kind == kind] for kind in ("Conv2d", "Linear"))
    size, classes = spec.image_size, len(class_names)
    return {
        "architecture": f"resfit_{spec.family}",
        "num_classes": classes,
        "label_names": list(class_names),
        "pretrained_cfg": {
            "tag": recipe.name,
            "custom_load": False,
            "input_size": [spec.channels, size, size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": {"squash": "squash", "crop": "center", "pad": "border"}[recipe.data.resize],
            "mean": recipe.data.mean,
            "std": recipe.data.std,
            "num_classes": classes,
            "first_conv": convs[0] if convs else None,
            "classifier": linears[-1] if linears else None,
        },
    }


def weights_digest(path: str | Path | None) -> str | None:
    """Return a hash of the weights in a run or bundle folder, by which a resumed run knows them again; None for none.

    Raises OSError.
    """
    if path is None:
        return None
    file = bundle_folder(path) / "model.safetensors"
    return hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()


def read_weights(config: BundleConfig) -> dict[str, Tensor]:
    """Return the weights of a bundle by name; raises UsageError for a file that is damaged or too small for the network."""
    try:
        data = (config.folder / "model.safetensors").read_bytes()
        if cost(config.spec).weight_bytes > len(data):  # a config of others could ask for all memory there is
            raise ValueError("config.json describes a larger network than model.safetensors holds")
        return load(data)
    except UsageError:
        raise
    except Exception as error:
        raise unreadable(config.folder, error) from error


def load_bundle(path: str | Path, device: str = "auto") -> Bundle:
    """Return the bundle in a run folder or bundle folder, its model on `device` and in evaluation mode.

    Raises UsageError when there is none or it does not fit together.
    """
    config = read_config(path)
    weights = read_weights(config)
    try:
        model = build(config.spec)
        model.load_state_dict(weights)
    except UsageError:
        raise
    except Exception as error:
        raise unreadable(config.folder, error) from error
    model.to(choose_device(device)).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    tta, below = config.tta, config.tta_below
    names, mean, std = config.class_names, config.mean, config.std
    return Bundle(config.spec, model, names, config.rule, mean, std, tta, below, config.values)
