"""The layers of a network one by one, in closed form and without torch, as torchsummary lists them.

A row a module that `cost` counts, named as in the module tree and in the order in which their forward passes end: every
convolution, BatchNorm, linear layer, squeeze-and-excitation and block. ReLUs, pools and empty shortcuts have none.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from resfit.models.cost import STEM_KERNEL

if TYPE_CHECKING:
    from resfit.models.spec import ModelSpec


class Layer(NamedTuple):
    """One module: its name and type, the shape it puts out for one image, its own trainable params, its macs."""

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    macs: int

    @property
    def outputs(self) -> int:
        """The numbers put out."""
        return math.prod(self.shape)


BlockLayers = Callable[["ModelSpec", str, int, int, int, int, int], Iterable[Layer]]


def conv(spec: "ModelSpec", name: str, width_in: int, width: int, kernel: int, side: int, groups: int = 1) -> Layer:
    """Count a convolution whose output has this side."""
    weights = width_in // groups * width * kernel**2
    return Layer(name, "Conv2d", (width, side, side), weights + width * spec.conv_bias, weights * side * side)


def norm(name: str, width: int, side: int) -> Layer:
    """Count a BatchNorm."""
    return Layer(name, "BatchNorm2d", (width, side, side), 2 * width, 0)


def end_layers(
    spec: "ModelSpec", name: str, kind: str, width_in: int, width: int, stride: int, side: int
) -> Iterable[Layer]:
    """List what ends every block: squeeze-and-excitation where asked for, the projection where needed, the block itself."""
    shape = (width, side, side)
    if spec.se_reduction:
        hidden = width // spec.se_reduction
        yield Layer(f"{name}.se.reduce", "Linear", (hidden,), width * hidden, width * hidden)
        yield Layer(f"{name}.se.expand", "Linear", (width,), width * hidden, width * hidden)
        yield Layer(f"{name}.se", "SqueezeExcitation", shape, 0, 0)
    if stride != 1 or width_in != width:
        yield conv(spec, f"{name}.shortcut.0", width_in, width, spec.shortcut_kernel, side)
        if spec.shortcut_norm:
            yield norm(f"{name}.shortcut.1", width, side)
    yield Layer(name, kind, shape, 0, 0)


def network_layers(spec: "ModelSpec", block: BlockLayers, normed_at: Literal["stem", "end"]) -> Iterable[Layer]:
    """List stem, stages and head; `block(spec, name, width_in, width, stride, side_in, side)` and `normed_at` as in cost."""
    side, _ = spec.stem_sides
    yield conv(spec, "stem", spec.channels, spec.stem_width, STEM_KERNEL, side)
    if normed_at == "stem":
        yield norm("norm", spec.stem_width, side)
    for number, (width_in, width, blocks, stride, side_in, side) in enumerate(spec.stages()):
        yield from block(spec, f"stages.{number}.0", width_in, width, stride, side_in, side)
        for index in range(1, blocks):
            yield from block(spec, f"stages.{number}.{index}", width, width, 1, side, side)
    if normed_at == "end":
        yield norm("norm", spec.widths[-1], spec.stages()[-1].side)
    weights = spec.features * spec.classes
    yield Layer("head", "Linear", (spec.classes,), weights + spec.classes, weights)
