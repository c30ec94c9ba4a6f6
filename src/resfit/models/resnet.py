"""Cost of the residual network of He et al. 2015, "Deep residual learning for image recognition", arXiv 1512.03385.

We depart from its CIFAR networks where size or width changes: a projection (its option B), no padding with zeros.
"""

from collections.abc import Iterable

from resfit.models.cost import Block, Cost, Parts, block_end, network_cost
from resfit.models.layertable import Layer, conv, end_layers, network_layers, norm
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `resnet` spec."""
    return network_cost(spec, PARTS)


def layers(spec: ModelSpec) -> Iterable[Layer]:
    """List the layers of a `resnet` spec in forward order."""
    return network_layers(spec, _block_layers, normed_at="stem")


def block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Block:
    """Count one block; widths may be arrays."""
    weights = spec.kernel**2 * width * (width_in + width)
    params, macs, activations = block_end(spec, width_in, width, stride, side)
    return (
        params + weights + 2 * width * spec.conv_bias + 4 * width,
        macs + weights * side * side,
        activations + 4 * width * side * side,
        width_in * side_in**2 + 2 * width * side * side,  # input, between, and out or the projection
    )


PARTS = Parts(block, "stem")


def _block_layers(
    spec: ModelSpec, name: str, width_in: int, width: int, stride: int, side_in: int, side: int
) -> Iterable[Layer]:
    yield conv(spec, f"{name}.conv1", width_in, width, spec.kernel, side)
    yield norm(f"{name}.norm1", width, side)
    yield conv(spec, f"{name}.conv2", width, width, spec.kernel, side)
    yield norm(f"{name}.norm2", width, side)
    yield from end_layers(spec, name, "BasicBlock", width_in, width, stride, side)
