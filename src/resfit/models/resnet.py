"""Cost of the residual network of He et al. 2015, "Deep residual learning for image recognition", arXiv 1512.03385.

We depart from its CIFAR networks where size or width changes: a projection (its option B), no padding with zeros.
"""

from resfit.models.cost import Block, Cost, block_end, network_cost
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `resnet` spec."""
    return network_cost(spec, _block, normed_at="stem")


def _block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Block:
    weights = spec.kernel**2 * width * (width_in + width)
    params, macs, activations = block_end(spec, width_in, width, stride, side)
    return (
        params + weights + 2 * width * spec.conv_bias + 4 * width,
        macs + weights * side * side,
        activations + 4 * width * side * side,
    )
