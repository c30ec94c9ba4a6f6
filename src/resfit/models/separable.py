"""Cost of the residual network with the depthwise-separable convolutions of Howard et al. 2017, "MobileNets", arXiv 1704.04861.

We depart from MobileNets in that these stand in the blocks of He et al. 2015, arXiv 1512.03385, with their shortcuts.
"""

from resfit.models.cost import Cost, Layer, conv, network_cost, norm, residual_end, total
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `separable` spec."""
    return network_cost(spec, _block, normed_at="stem")


def _block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Layer:
    return total(
        (
            _separable(spec, width_in, width, side),
            norm(width, side),
            _separable(spec, width, width, side),
            norm(width, side),
            residual_end(spec, width_in, width, stride, side),
        )
    )


def _separable(spec: ModelSpec, width_in: int, width: int, side: int) -> Layer:
    return total(
        (
            conv(width_in, width_in, spec.kernel, side, spec.conv_bias, groups=width_in),
            norm(width_in, side),
            conv(width_in, width, 1, side, spec.conv_bias),
        )
    )
