"""Cost of the wide residual network of Zagoruyko & Komodakis 2016, "Wide residual networks", arXiv 1605.07146.

Its blocks are pre-activated, as in He et al. 2016, "Identity mappings in deep residual networks", arXiv 1603.05027. We
depart from it only in that any widths may be given, so that its widening factor may be a fraction.
"""

from collections.abc import Iterable

from resfit.models.cost import Block, Cost, Parts, block_end, network_cost
from resfit.models.layertable import Layer, conv, end_layers, network_layers, norm
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `wrn` spec."""
    return network_cost(spec, PARTS)


def layers(spec: ModelSpec) -> Iterable[Layer]:
    """List the layers of a `wrn` spec in forward order."""
    return network_layers(spec, _block_layers, normed_at="end")


def block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Block:
    """Count one block; widths may be arrays."""
    weights = spec.kernel**2 * width * (width_in + width)
    params, macs, activations = block_end(spec, width_in, width, stride, side)
    return (
        params + weights + 2 * width * spec.conv_bias + 2 * (width_in + width),
        macs + weights * side * side,
        activations + width_in * side_in**2 + 3 * width * side * side,
        width_in * side_in**2 + 2 * width * side * side,  # input, activated or between, and out
    )


PARTS = Parts(block, "end")


def _block_layers(
    spec: ModelSpec, name: str, width_in: int, width: int, stride: int, side_in: int, side: int
) -> Iterable[Layer]:
    yield norm(f"{name}.norm1", width_in, side_in)
    yield conv(spec, f"{name}.conv1", width_in, width, spec.kernel, side)
    yield norm(f"{name}.norm2", width, side)
    yield conv(spec, f"{name}.conv2", width, width, spec.kernel, side)
    yield from end_layers(spec, name, "PreActivatedBlock", width_in, width, stride, side)
