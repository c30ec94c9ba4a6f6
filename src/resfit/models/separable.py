"""Cost of the residual network with depthwise-separable convolutions (Howard et al. 2017, arXiv 1704.04861).

We depart from MobileNets in that these stand in the blocks of He et al. 2015, arXiv 1512.03385, with their shortcuts.
"""

from collections.abc import Iterable

from resfit.models.cost import Block, Cost, Parts, block_end, larger, network_cost
from resfit.models.layertable import Layer, conv, end_layers, network_layers, norm
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `separable` spec."""
    return network_cost(spec, PARTS)


def layers(spec: ModelSpec) -> Iterable[Layer]:
    """List the layers of a `separable` spec in forward order."""
    return network_layers(spec, _block_layers, normed_at="stem")


def block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Block:
    """Count one block; widths may be arrays."""
    between = width_in + width  # channels of the two depthwise convolutions
    weights = between * (spec.kernel**2 + width)
    params, macs, activations = block_end(spec, width_in, width, stride, side)
    return (
        params + weights + (between + 2 * width) * spec.conv_bias + 2 * (between + 2 * width),
        macs + weights * side * side,
        activations + 2 * (between + 2 * width) * side * side,
        width_in * side_in**2 + (larger(width_in, width) + width) * side * side,
    )


PARTS = Parts(block, "stem")


def _block_layers(
    spec: ModelSpec, name: str, width_in: int, width: int, stride: int, side_in: int, side: int
) -> Iterable[Layer]:
    for number, taken in (("1", width_in), ("2", width)):
        yield conv(spec, f"{name}.conv{number}.0", taken, taken, spec.kernel, side, groups=taken)
        yield norm(f"{name}.conv{number}.1", taken, side)
        yield conv(spec, f"{name}.conv{number}.3", taken, width, 1, side)
        yield norm(f"{name}.norm{number}", width, side)
    yield from end_layers(spec, name, "BasicBlock", width_in, width, stride, side)
