"""Cost of the residual network with a whitening first convolution, made for the shortest way to an accuracy.

The whitening convolution, max-pooling before BatchNorm, BatchNorm without a scale, GELU and the scaled head follow Page 2019,
"How to train your ResNet", and Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498. We depart
from both in that every convolution after a stage's first stands in a residual block of its own.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from resfit.errors import UsageError
from resfit.models.cost import Cost
from resfit.models.layertable import Layer, conv

if TYPE_CHECKING:
    from resfit.models.spec import ModelSpec

WHITENING_KERNEL = 2  # not padded: a map of side 32 becomes 31, and the stages halve it to 15, 7 and 3
WITHOUT = ("se_reduction", "dropout", "stochastic_depth", "conv_bias", "pool")


def sides(spec: "ModelSpec") -> list[int]:
    """Return the side of the whitened map, then of each stage's; what a pool leaves over at an edge is dropped."""
    found = [spec.image_size - WHITENING_KERNEL + 1]
    for stride in spec.strides:
        found.append(found[-1] // stride)
    return found


def check(spec: "ModelSpec") -> None:
    """Refuse a spec with what this family has not. Raises UsageError."""
    for name in WITHOUT:
        if getattr(spec, name):
            raise UsageError(f"{name}: the family whitened has none. Leave it out, or take resnet.")
    filters = 2 * spec.channels * WHITENING_KERNEL**2
    if spec.stem_width != filters:
        raise UsageError(f"stem_width: whitening {spec.channels} channels takes {filters} filters. Leave it out.")
    if sides(spec)[-1] < 1:
        raise UsageError(
            f"image_size: {spec.image_size} is too small for {len(spec.strides)} stages. Take larger images."
        )


def cost(spec: "ModelSpec") -> Cost:
    """Count a `whitened` spec: the whitening filters, which are computed from images and not trained, are no parameters."""
    rows = list(layers(spec))
    params, macs = sum(row.params for row in rows), sum(row.macs for row in rows)
    inputs, first = spec.channels * spec.image_size**2, sides(spec)[0]
    alive, held, side_in = [inputs + spec.stem_width * first**2], spec.stem_width * first**2, first
    for width, side in zip(spec.widths, sides(spec)[1:], strict=True):
        convolved = width * side_in**2
        alive += [held + convolved, convolved + width * side**2, 2 * width * side**2]
        held, side_in = width * side**2, side
    return Cost(params, macs, sum(row.outputs for row in rows), inputs, max(alive))


def layers(spec: "ModelSpec") -> Iterable[Layer]:
    """List the layers of a `whitened` spec in forward order."""
    first, *others = sides(spec)
    weights = spec.channels * spec.stem_width * WHITENING_KERNEL**2
    yield Layer("stem", "Conv2d", (spec.stem_width, first, first), spec.stem_width, weights * first * first)
    width_in, side_in = spec.stem_width, first
    for number, (width, blocks, side) in enumerate(zip(spec.widths, spec.blocks_per_stage, others, strict=True)):
        yield conv(spec, f"stages.{number}.0.conv", width_in, width, spec.kernel, side_in)
        yield Layer(f"stages.{number}.0.norm", "BatchNorm2d", (width, side, side), width, 0)
        yield Layer(f"stages.{number}.0", "PooledConv", (width, side, side), 0, 0)
        for index in range(1, blocks + 1):
            name = f"stages.{number}.{index}"
            yield conv(spec, f"{name}.conv", width, width, spec.kernel, side)
            yield Layer(f"{name}.norm", "BatchNorm2d", (width, side, side), width, 0)
            yield Layer(name, "ResidualConv", (width, side, side), 0, 0)
        width_in, side_in = width, side
    weights = spec.widths[-1] * spec.classes
    yield Layer("head", "Linear", (spec.classes,), weights, weights)
