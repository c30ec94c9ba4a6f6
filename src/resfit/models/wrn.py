"""Cost of the wide residual network of Zagoruyko & Komodakis 2016, "Wide residual networks", arXiv 1605.07146.

Its blocks are pre-activated, as in He et al. 2016, "Identity mappings in deep residual networks", arXiv 1603.05027. We depart from it
only in that any widths may be given, so that its widening factor may be a fraction.
"""

from resfit.models.cost import Cost, Layer, conv, network_cost, norm, residual_end, total
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `wrn` spec."""
    return network_cost(spec, _block, normed_at="end")


def _block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Layer:
    return total(
        (
            norm(width_in, side_in),
            conv(width_in, width, spec.kernel, side, spec.conv_bias),
            norm(width, side),
            conv(width, width, spec.kernel, side, spec.conv_bias),
            residual_end(spec, width_in, width, stride, side),
        )
    )
