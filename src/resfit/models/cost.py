"""What a network costs, in closed form and without torch: the arithmetic that the families share.

A layer or block is (params, macs, activations); a family gives the cost of one block and `network_cost` does the rest. Blocks of a
stage after its first are identical, so a stage costs two of them to count, however deep it is.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resfit.models.spec import ModelSpec

STEM_KERNEL = 3  # whatever the blocks' kernel is: only so does r2-1 have its printed count

Layer = tuple[int, int, int]
BlockCost = Callable[["ModelSpec", int, int, int, int, int], Layer]


@dataclass(frozen=True, slots=True)
class Cost:
    """Count a network, for one image.

    `params`: trainable parameters. `macs`: multiply-accumulates of convolutions and linear layers, without biases.
    `activations`: the numbers put out by every convolution, BatchNorm, linear layer and block (residual, and
    squeeze-and-excitation), as torchsummary counts; functional ReLUs, pools and empty shortcuts are not counted.
    `inputs`: the numbers of the image.
    """

    params: int
    macs: int
    activations: int
    inputs: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters in float32, and of nothing else: no BatchNorm statistics, no file header."""
        return 4 * self.params

    @property
    def memory_mb(self) -> dict[str, float]:
        """MiB in float32 as torchsummary prints it: activations twice (their gradients), the total before rounding."""
        sizes = {
            "input": 4 * self.inputs,
            "activations": 2 * 4 * self.activations,
            "params": self.weight_bytes,
        }
        sizes["total"] = sum(sizes.values())
        return {name: round(size / 2**20, 2) for name, size in sizes.items()}


def network_cost(spec: "ModelSpec", block: BlockCost, normed_at: str) -> Cost:
    """Add up stem, stages and head.

    `block(spec, width_in, width, stride, side_in, side)` counts one block; `normed_at` says where the BatchNorm outside
    the blocks stands: after the "stem", or after the last block ("end").
    """
    parts = [conv(spec.channels, spec.stem_width, STEM_KERNEL, spec.image_size, spec.conv_bias)]
    if normed_at == "stem":
        parts.append(norm(spec.stem_width, spec.image_size))
    width = side = 0
    for width_in, width, blocks, stride, side_in, side in spec.stages():
        parts.append(block(spec, width_in, width, stride, side_in, side))
        if blocks > 1:
            params, macs, activations = block(spec, width, width, 1, side, side)
            parts.append(((blocks - 1) * params, (blocks - 1) * macs, (blocks - 1) * activations))
    if normed_at == "end":
        parts.append(norm(width, side))
    parts.append(linear(spec.features, spec.classes, bias=True))
    return Cost(*total(parts), inputs=spec.channels * spec.image_size**2)


def total(parts: Iterable[Layer]) -> Layer:
    """Add layers up."""
    params = macs = activations = 0
    for p, m, a in parts:
        params += p
        macs += m
        activations += a
    return params, macs, activations


def conv(width_in: int, width: int, kernel: int, side: int, bias: bool, groups: int = 1) -> Layer:
    """Count a convolution whose output is (width, side, side)."""
    weights = width_in // groups * width * kernel * kernel
    outputs = width * side * side
    return weights + width * bias, weights * side * side, outputs


def norm(width: int, side: int) -> Layer:
    """Count a BatchNorm over (width, side, side): a scale and an offset a channel."""
    return 2 * width, 0, width * side * side


def linear(width_in: int, width: int, bias: bool) -> Layer:
    """Count a linear layer."""
    return width_in * width + width * bias, width_in * width, width


def residual_end(spec: "ModelSpec", width_in: int, width: int, stride: int, side: int) -> Layer:
    """Count what ends every block: squeeze-and-excitation where asked for, the projection where needed, the sum."""
    parts = [(0, 0, width * side * side)]
    if spec.se_reduction:
        hidden = width // spec.se_reduction
        parts += [linear(width, hidden, False), linear(hidden, width, False), (0, 0, width * side * side)]
    if stride != 1 or width_in != width:
        parts.append(conv(width_in, width, spec.shortcut_kernel, side, spec.conv_bias))
        if spec.shortcut_norm:
            parts.append(norm(width, side))
    return total(parts)
