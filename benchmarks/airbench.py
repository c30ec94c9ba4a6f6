"""What running a script of KellerJordan/cifar10-airbench takes here: its images in its own form, and a CPU in CUDA's place."""

import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from resfit.data.images import ImageSet


def write_images(folder: Path, train: ImageSet, test: ImageSet) -> None:
    """Write cifar10/train.pt and test.pt: uint8 (N, 32, 32, 3), labels, class names.

    The training images are shuffled once, as CIFAR-10's are and a folder's, class by class, are not: the scripts compute their
    whitening from the first 5,000.
    """
    (folder / "cifar10").mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(train))
    for name, split in (("train", train.take(order)), ("test", test)):
        images = torch.from_numpy(np.ascontiguousarray(np.array(split.images).transpose(0, 2, 3, 1)))
        value = {
            "images": images,
            "labels": torch.from_numpy(np.array(split.labels)),
            "classes": list(split.class_names),
        }
        torch.save(value, folder / "cifar10" / f"{name}.pt")


def without_cuda() -> None:
    """Let a script run on a CPU, in float32, uncompiled, without torchvision: one name here stands for each of CUDA's."""
    vision, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    load = torch.load
    changed: list[tuple[Any, str, Any]] = [
        (transforms, "Normalize", Normalize),
        (vision, "transforms", transforms),
        (torch, "load", lambda path, map_location=None: load(path)),
        (torch, "compile", lambda made=None, **options: made),
        (torch.Tensor, "half", lambda self: self.float()),
        (nn.Module, "half", lambda self: self.float()),
        (nn.Module, "cuda", lambda self: self),
        (nn.Module, "compile", lambda self, **options: None),
        (torch.cuda, "Event", Event),
        (torch.cuda, "synchronize", lambda: None),
    ]
    for owner, attribute, value in changed:
        setattr(owner, attribute, value)
    sys.modules |= {"torchvision": vision, "torchvision.transforms": transforms}


class Event:
    """What torch.cuda.Event is asked for."""

    def __init__(self, enable_timing: bool) -> None:
        self.at = 0.0

    def record(self) -> None:  # noqa: D102
        self.at = time.perf_counter()

    def elapsed_time(self, other: "Event") -> float:  # noqa: D102
        return 1000 * (other.at - self.at)


class Normalize:
    """What torchvision.transforms.Normalize is asked for."""

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        self.mean, self.std = mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return (images - self.mean) / self.std
