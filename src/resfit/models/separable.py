"""Cost of the residual network with depthwise-separable convolutions (Howard et al. 2017, arXiv 1704.04861).

We depart from MobileNets in that these stand in the blocks of He et al. 2015, arXiv 1512.03385, with their shortcuts.
"""

from resfit.models.cost import Block, Cost, block_end, network_cost
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `separable` spec."""
    return network_cost(spec, _block, normed_at="stem")


def _block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Block:
    between = width_in + width  # channels of the two depthwise convolutions
    weights = between * (spec.kernel**2 + width)
    params, macs, activations = block_end(spec, width_in, width, stride, side)
    return (
        params + weights + (between + 2 * width) * spec.conv_bias + 2 * (between + 2 * width),
        macs + weights * side * side,
        activations + 2 * (between + 2 * width) * side * side,
    )
