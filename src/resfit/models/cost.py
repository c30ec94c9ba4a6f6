"""What a network costs, in closed form and without torch: the arithmetic that the families share.

A family counts one block as (params, macs, activations, peak) and `network_cost` does the rest. The blocks of a stage after
its first are identical, so that any depth takes two of them to count. Blocks are arithmetic alone: numpy arrays of widths
count many networks at once (solver.py).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from resfit.models.spec import ModelSpec

STEM_KERNEL = 3  # whatever the blocks' kernel is: only so does r2-1 have its printed count

Block = tuple[int, int, int, int]
BlockCost = Callable[["ModelSpec", int, int, int, int, int], Block]


@dataclass(frozen=True, slots=True)
class Cost:
    """Count a network, for one image.

    `params`: trainable parameters. `macs`: multiply-accumulates of convolutions and linear layers, without biases.
    `activations`: the numbers put out by every convolution, BatchNorm, linear layer and block (residual, and
    squeeze-and-excitation), as torchsummary counts; functional ReLUs, pools and empty shortcuts are not counted.
    `inputs`: the numbers of the image. `peak`: the most numbers alive at once in prediction, with BatchNorms folded, and ReLUs
    and sums in place: the working memory in bytes at int8, as a microcontroller counts it.
    """

    params: int
    macs: int
    activations: int
    inputs: int
    peak: int

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


class Parts(NamedTuple):
    """What a family's networks are made of: `block(spec, width_in, width, stride, side_in, side)` counts one block.

    `normed_at` says where the BatchNorm outside the blocks stands: after the "stem", or after the last block ("end").
    """

    block: BlockCost
    normed_at: Literal["stem", "end"]


def network_cost(spec: "ModelSpec", parts: Parts) -> Cost:
    """Add up stem, stages and head."""
    stages = spec.stages()
    found = [
        (1, stem_part(spec, parts, spec.stem_width)),
        (1, head_part(spec, parts, spec.widths[-1], stages[-1].side)),
    ]
    for width_in, width, blocks, stride, side_in, side in stages:
        found.append((1, parts.block(spec, width_in, width, stride, side_in, side)))
        if blocks > 1:
            found.append((blocks - 1, parts.block(spec, width, width, 1, side, side)))
    params, macs, activations = (sum(times * part[i] for times, part in found) for i in range(3))
    return Cost(params, macs, activations, spec.channels * spec.image_size**2, max(part[3] for _, part in found))


def stem_part(spec: "ModelSpec", parts: Parts, width: int) -> Block:
    """Count the first convolution, and its BatchNorm where it has one; a max-pool after it counts in the peak alone."""
    (side, pooled), normed = spec.stem_sides, parts.normed_at == "stem"
    weights, inputs = spec.channels * width * STEM_KERNEL**2, spec.channels * spec.image_size**2
    params = weights + width * spec.conv_bias + 2 * width * normed
    beside = larger(inputs, width * pooled**2) if pooled < side else inputs  # what is alive with the convolution's map
    return params, weights * side**2, width * side**2 * (1 + normed), width * side**2 + beside


def head_part(spec: "ModelSpec", parts: Parts, width: int, side: int) -> Block:
    """Count the pool and the linear layer, and the BatchNorm before them where there is one."""
    normed, positions = parts.normed_at == "end", (side // spec.pool) ** 2 if spec.pool else 1
    weights = width * positions * spec.classes
    return (
        weights + spec.classes + 2 * width * normed,
        weights,
        spec.classes + width * side**2 * normed,
        width * side**2,
    )


def block_end(spec: "ModelSpec", width_in: int, width: int, stride: int, side: int) -> tuple[int, int, int]:
    """Count (params, macs, activations) of what ends a block: squeeze-and-excitation, the projection where needed, the sum."""
    outputs = width * side * side
    params, macs, activations = 0, 0, outputs
    if spec.se_reduction:
        hidden = width // spec.se_reduction
        params = macs = 2 * width * hidden
        activations = activations + hidden + width + outputs
    projected = (stride != 1) | (width_in != width)
    weights = width_in * width * spec.shortcut_kernel**2 * projected
    params = params + weights + (width * spec.conv_bias + 2 * width * spec.shortcut_norm) * projected
    return params, macs + weights * side * side, activations + outputs * (1 + spec.shortcut_norm) * projected


def larger(a: int, b: int) -> int:
    """Return the larger one, of arrays element by element."""
    return (a + b + abs(a - b)) // 2
