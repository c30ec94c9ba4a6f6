"""Cost of the residual network of He et al. 2015, "Deep residual learning for image recognition", arXiv 1512.03385.

We depart from its CIFAR networks where a block changes size or width: a projection (their option B), not padding with zeros.
"""

from resfit.models.cost import Cost, Layer, conv, network_cost, norm, residual_end, total
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `resnet` spec."""
    return network_cost(spec, _block, normed_at="stem")


def _block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Layer:
    return total(
        (
            conv(width_in, width, spec.kernel, side, spec.conv_bias),
            norm(width, side),
            conv(width, width, spec.kernel, side, spec.conv_bias),
            norm(width, side),
            residual_end(spec, width_in, width, stride, side),
        )
    )
