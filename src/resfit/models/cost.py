"""What a network costs, in closed form and without torch: the arithmetic that the families share.

A family counts one block as (params, macs, activations) and `network_cost` does the rest. The blocks of a stage after
its first are identical, so that any depth takes two of them to count.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from resfit.models.spec import ModelSpec

STEM_KERNEL = 3  # whatever the blocks' kernel is: only so does r2-1 have its printed count

Block = tuple[int, int, int]
BlockCost = Callable[["ModelSpec", int, int, int, int, int], Block]


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


def network_cost(spec: "ModelSpec", block: BlockCost, normed_at: Literal["stem", "end"]) -> Cost:
    """Add up stem, stages and head.

    `block(spec, width_in, width, stride, side_in, side)` counts one block; `normed_at` says where the BatchNorm outside
    the blocks stands: after the "stem", or after the last block ("end").
    """
    area = spec.image_size**2
    stem = spec.channels * spec.stem_width * STEM_KERNEL**2
    head = spec.features * spec.classes
    params = stem + spec.stem_width * spec.conv_bias + head + spec.classes
    macs = stem * area + head
    activations = spec.stem_width * area + spec.classes
    width = side = 0
    for width_in, width, blocks, stride, side_in, side in spec.stages():
        parts = [block(spec, width_in, width, stride, side_in, side)]
        if blocks > 1:
            parts.append(block(spec, width, width, 1, side, side))
        for times, (p, m, a) in zip((1, blocks - 1), parts, strict=False):
            params += times * p
            macs += times * m
            activations += times * a
    normed, normed_area = (spec.stem_width, area) if normed_at == "stem" else (width, side * side)
    return Cost(params + 2 * normed, macs, activations + normed * normed_area, inputs=spec.channels * area)


def block_end(spec: "ModelSpec", width_in: int, width: int, stride: int, side: int) -> Block:
    """Count what ends every block: squeeze-and-excitation where asked for, the projection where needed, the sum."""
    outputs = width * side * side
    params, macs, activations = 0, 0, outputs
    if spec.se_reduction:
        hidden = width // spec.se_reduction
        params += 2 * width * hidden
        macs += 2 * width * hidden
        activations += hidden + width + outputs
    if stride != 1 or width_in != width:
        weights = width_in * width * spec.shortcut_kernel**2
        params += weights + width * spec.conv_bias + 2 * width * spec.shortcut_norm
        macs += weights * side * side
        activations += outputs * (1 + spec.shortcut_norm)
    return params, macs, activations
