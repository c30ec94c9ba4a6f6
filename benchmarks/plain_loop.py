"""The plain training loop that the five reports use, as a peer for benchmarks: no part of resfit is in its step.

NCHW, torch's own optimizers as they come, a DataLoader over a Dataset that transforms image by image with Pillow what
torchvision's transforms do, `loss.item()` at every batch. Written anew after the reports' descriptions.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from resfit.models.families import cost
from resfit.models.spec import ModelSpec
from resfit.recipe import Recipe

Transform = Callable[[Image.Image], Image.Image]


class Block(nn.Module):
    """Two 3x3 convolutions, squeeze-and-excitation where asked for, a projection where size or width changes."""

    def __init__(self, width_in: int, width: int, stride: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.squeeze = nn.Linear(width, width // reduction, bias=False) if reduction else None
        self.excite = nn.Linear(width // reduction, width, bias=False) if reduction else None
        self.shortcut = nn.Sequential()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride)."""
        out: Tensor = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.squeeze is not None and self.excite is not None:
            gate = torch.sigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(out, 1).flatten(1)))))
            out = out * gate[:, :, None, None]
        out = out + self.shortcut(x)
        return F.relu(out)


class Network(nn.Module):
    """Stem, stages, average pool, linear layer."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, spec.stem_width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(spec.stem_width)
        layers: list[nn.Module] = []
        for stage in spec.stages():
            for number in range(stage.blocks):
                width_in, stride = (stage.width_in, stage.stride) if number == 0 else (stage.width, 1)
                layers.append(Block(width_in, stage.width, stride, spec.se_reduction))
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(spec.widths[-1], spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes)."""
        out: Tensor = self.layers(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


class Images(Dataset[tuple[Tensor, int]]):
    """uint8 images in memory, as torchvision's CIFAR10 has them; a Pillow image, its transforms, a normalised tensor each."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, recipe: Recipe) -> None:
        self.pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.labels = labels.tolist()
        self.transforms = [TRANSFORMS[name](params) for name, params in recipe.augment.items()]
        assert recipe.data.mean is not None
        assert recipe.data.std is not None
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.data.mean, recipe.data.std))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.pixels[index])
        for transform in self.transforms:
            picture = transform(picture)
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
        return tensor.sub_(self.mean).div_(self.std), self.labels[index]


def make_plain(recipe: Recipe, images: np.ndarray, labels: np.ndarray, workers: int) -> Callable[[], None]:
    """Return a call that trains one more batch, the network and its loader living on between calls."""
    network, optim = Network(recipe.network), recipe.optim
    assert sum(p.numel() for p in network.parameters()) == cost(recipe.network).params, "not the same network"
    network.train()
    optimizer: torch.optim.Optimizer
    if optim.name == "sgd":
        momentum, nesterov = optim.params["momentum"], optim.params["nesterov"]
        optimizer = torch.optim.SGD(
            network.parameters(), optim.lr, momentum, weight_decay=optim.weight_decay, nesterov=nesterov
        )
    else:
        assert optim.name == "adam", optim.name
        optimizer = torch.optim.Adam(network.parameters(), optim.lr, weight_decay=optim.weight_decay)
    criterion = nn.CrossEntropyLoss()
    loader = DataLoader(
        Images(images, labels, recipe), recipe.train.batch_size, shuffle=True, num_workers=workers, drop_last=True
    )
    batches, total = _endless(loader), {"loss": 0.0, "correct": 0, "images": 0}

    def step() -> None:
        inputs, targets = next(batches)
        optimizer.zero_grad()
        outputs = network(inputs)
        loss = criterion(outputs, targets)
        loss.backward()
        if optim.clip_norm is not None:
            nn.utils.clip_grad_norm_(network.parameters(), optim.clip_norm)
        optimizer.step()
        total["loss"] += loss.item()
        total["correct"] += outputs.argmax(1).eq(targets).sum().item()
        total["images"] += len(targets)

    return step


def _endless(loader: DataLoader[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _crop(params: Mapping[str, Any]) -> Transform:
    padding = params["padding"]

    def crop(picture: Image.Image) -> Image.Image:
        wide = ImageOps.expand(picture, padding)
        x, y = random.randint(0, 2 * padding), random.randint(0, 2 * padding)
        return wide.crop((x, y, x + picture.width, y + picture.height))

    return crop


def _flip(params: Mapping[str, Any]) -> Transform:
    def flip(picture: Image.Image) -> Image.Image:
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else picture

    return flip


def _rotation(params: Mapping[str, Any]) -> Transform:
    return lambda picture: picture.rotate(random.uniform(-params["degrees"], params["degrees"]))


def _affine(params: Mapping[str, Any]) -> Transform:
    def affine(picture: Image.Image) -> Image.Image:
        across, down = (round(random.uniform(-1, 1) * params["translate"] * side) for side in picture.size)
        return picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, -across, 0, 1, -down))

    return affine


def _jitter(params: Mapping[str, Any]) -> Transform:
    enhancers = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast}
    enhancers |= {"saturation": ImageEnhance.Color}

    def jitter(picture: Image.Image) -> Image.Image:
        names = [name for name in (*enhancers, "hue") if params[name] > 0]
        for name in random.sample(names, len(names)):
            strength = params[name]
            if name == "hue":
                hue, saturation, value = picture.convert("HSV").split()
                turned = np.array(hue) + np.uint8(round(random.uniform(-strength, strength) * 255) % 256)
                bands = (Image.fromarray(turned), saturation, value)
                picture = Image.merge("HSV", bands).convert("RGB")
            else:
                picture = enhancers[name](picture).enhance(random.uniform(max(0, 1 - strength), 1 + strength))
        return picture

    return jitter


TRANSFORMS: dict[str, Callable[[Mapping[str, Any]], Transform]] = {
    "crop": _crop,
    "flip": _flip,
    "rotation": _rotation,
    "affine": _affine,
    "color-jitter": _jitter,
}
