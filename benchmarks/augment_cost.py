"""What augmentation costs as a share of a training step on the CPU, beside kornia and Pillow image by image; prints JSON.

Usage: python benchmarks/augment_cost.py [NETWORK AUGMENTATION] [--repeats 5]: r4-lighter or resnet-20, and crop-flip-cutout or
trivial-augment; every pair, an object each, when none is given. Everything is timed in alternation in one run, a batch of 128
images of 32 pixels. The share is the augmentation's own time over that of a whole step with it (resfit.training.step); a peer's
share is its time over that of a step without augmentation plus it. The loop does per image what torchvision's transforms do
with Pillow, from uint8 array to uint8 tensor. kornia, where it is installed, gets its floats ready made; its TrivialAugment
draws one operation for a whole batch, where ours and Pillow's draw one for each image.
"""

import argparse
import importlib.util
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from resfit.data.augment import make_augment
from resfit.machine import default_threads, tune
from resfit.plugins import check_params
from resfit.recipefile import load_recipe
from resfit.training.init import make_state
from resfit.training.step import make_step
from result import show

NETWORKS = ("r4-lighter", "resnet-20")
STEPS = {"crop-flip-cutout": ("crop", "flip", "cutout"), "trivial-augment": ("trivial-augment",)}
GOALS = {"crop-flip-cutout": 0.05, "trivial-augment": 0.15}
BATCH = 128
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", choices=NETWORKS)
    parser.add_argument("augmentation", nargs="?", choices=STEPS)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    tune(default_threads())
    for network in [options.network] if options.network else NETWORKS:
        for name in [options.augmentation] if options.augmentation else STEPS:
            measure(network, name, options.repeats)


def measure(network: str, name: str, repeats: int) -> None:
    """Print the result of one network and one augmentation."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
    steps = {step: check_params("augmentations", step, {}, step) for step in STEPS[name]}
    augment, index = make_augment(steps), torch.arange(BATCH)
    epochs = iter(range(10**9))  # other draws each time
    pillow, floats, kornia = PILLOW[name], images / 255, kornia_augment(name)
    timed: dict[str, tuple[Callable[[], object], int]] = {
        "with": (training_step(network, images, steps), 1),
        "without": (training_step(network, images, {}), 1),
        "ours": (lambda: augment(images, index, 0, next(epochs)), 20),
        "pillow": (lambda: torch.from_numpy(np.stack([pillow(image) for image in arrays])), 2),
    }
    arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
    if kornia is not None:
        timed["kornia"] = (lambda: kornia(floats), 20)
    seconds: dict[str, list[float]] = {key: [] for key in timed}
    for call, _ in timed.values():
        call()
    for _ in range(repeats):
        for key, (call, times) in timed.items():
            started = time.perf_counter()
            for _ in range(times):
                call()
            seconds[key].append((time.perf_counter() - started) / times)
    report(network, name, seconds)


def report(network: str, name: str, seconds: Mapping[str, list[float]]) -> None:
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    peers = {
        key: [own / (step + own) for own, step in zip(seconds[key], seconds["without"], strict=True)]
        for key in ("kornia", "pillow")
        if key in seconds
    }
    beside = {f"{key}_share": round(statistics.median(values), 4) for key, values in peers.items()}
    peer = next(iter(peers))
    show(
        f"share of a training step that {name} takes, {network}",
        [own / step for own, step in zip(seconds["ours"], seconds["with"], strict=True)],
        GOALS[name],
        data="random pixels",
        digits=4,
        goal_is="value at most",
        peer={"kornia": kornia_words(), "pillow": f"Pillow {PIL.__version__}, image by image"}[peer],
        peer_values=peers[peer],
        **beside,
        kornia=kornia_words(),
        batch=BATCH,
        threads=torch.get_num_threads(),
        milliseconds={key: round(1000 * value, 2) for key, value in medians.items()},
        share_by_difference=round(1 - medians["without"] / medians["with"], 4),
    )


def training_step(network: str, images: Tensor, steps: Mapping[str, Mapping[str, Any]]) -> Callable[[], None]:
    """Return a call that makes one update of a network of its own."""
    recipe = load_recipe(network, ["data.mean=[0.5,0.5,0.5]", "data.std=[0.25,0.25,0.25]"])
    recipe = recipe.model_copy(update={"augment": steps})
    state, step = make_state(recipe, 0, CPU), make_step(recipe, 1000, CPU)
    state.model.train()
    index = torch.arange(BATCH)
    return lambda: step(state, images, index % 10, index, 0)


def kornia_words() -> str:
    if importlib.util.find_spec("kornia") is None:
        return "not installed"
    import kornia

    return f"kornia {kornia.__version__}"


def kornia_augment(name: str) -> Callable[[Tensor], Tensor] | None:
    """Return kornia's augmentation of float images, or nothing where it is not installed."""
    if importlib.util.find_spec("kornia") is None:
        return None
    import kornia.augmentation as K
    from kornia.augmentation.auto import TrivialAugment

    if name == "trivial-augment":
        found: Callable[[Tensor], Tensor] = TrivialAugment()
        return found
    square = K.RandomErasing(scale=(0.25, 0.25), ratio=(1.0, 1.0), p=1.0)  # 16 of 32 pixels, never clipped
    return torch.nn.Sequential(K.RandomCrop((32, 32), padding=4), K.RandomHorizontalFlip(), square)


def pillow_crop_flip_cutout(pixels: np.ndarray) -> np.ndarray:
    x, y = random.randint(0, 8), random.randint(0, 8)
    picture = ImageOps.expand(Image.fromarray(pixels), 4).crop((x, y, x + 32, y + 32))
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    made = np.array(picture).transpose(2, 0, 1)
    row, column = random.randrange(32), random.randrange(32)
    made[:, max(0, row - 8) : row + 8, max(0, column - 8) : column + 8] = 0
    return made


def pillow_trivial_augment(pixels: np.ndarray) -> np.ndarray:
    picture, share, sign = Image.fromarray(pixels), random.randint(0, 30) / 30, random.choice((-1, 1))
    return np.array(random.choice(OPS)(picture, share, sign)).transpose(2, 0, 1)


def _affine(picture: Image.Image, *matrix: float) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix)


Op = Callable[[Image.Image, float, int], Image.Image]
OPS: tuple[Op, ...] = (
    lambda picture, share, sign: picture,
    lambda picture, share, sign: _affine(picture, 1, 0.99 * share * sign, 0, 0, 1, 0),
    lambda picture, share, sign: _affine(picture, 1, 0, 0, 0.99 * share * sign, 1, 0),
    lambda picture, share, sign: _affine(picture, 1, 0, int(32 * share) * sign, 0, 1, 0),
    lambda picture, share, sign: _affine(picture, 1, 0, 0, 0, 1, int(32 * share) * sign),
    lambda picture, share, sign: picture.rotate(135 * share * sign),
    lambda picture, share, sign: ImageEnhance.Brightness(picture).enhance(1 + 0.99 * share * sign),
    lambda picture, share, sign: ImageEnhance.Color(picture).enhance(1 + 0.99 * share * sign),
    lambda picture, share, sign: ImageEnhance.Contrast(picture).enhance(1 + 0.99 * share * sign),
    lambda picture, share, sign: ImageEnhance.Sharpness(picture).enhance(1 + 0.99 * share * sign),
    lambda picture, share, sign: ImageOps.posterize(picture, 8 - round(6 * share)),
    lambda picture, share, sign: ImageOps.solarize(picture, 256 - int(256 * share)),
    lambda picture, share, sign: ImageOps.autocontrast(picture),
    lambda picture, share, sign: ImageOps.equalize(picture),
)
PILLOW = {"crop-flip-cutout": pillow_crop_flip_cutout, "trivial-augment": pillow_trivial_augment}


if __name__ == "__main__":
    main()
