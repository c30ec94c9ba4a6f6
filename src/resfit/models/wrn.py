"""Cost of the wide residual network of Zagoruyko & Komodakis 2016, "Wide residual networks", arXiv 1605.07146.

Its blocks are pre-activated, as in He et al. 2016, "Identity mappings in deep residual networks", arXiv 1603.05027. We
depart from it only in that any widths may be given, so that its widening factor may be a fraction.
"""

from resfit.models.cost import Block, Cost, block_end, network_cost
from resfit.models.spec import ModelSpec


def cost(spec: ModelSpec) -> Cost:
    """Count a `wrn` spec."""
    return network_cost(spec, _block, normed_at="end")


def _block(spec: ModelSpec, width_in: int, width: int, stride: int, side_in: int, side: int) -> Block:
    weights = spec.kernel**2 * width * (width_in + width)
    params, macs, activations = block_end(spec, width_in, width, stride, side)
    return (
        params + weights + 2 * width * spec.conv_bias + 2 * (width_in + width),
        macs + weights * side * side,
        activations + width_in * side_in**2 + 3 * width * side * side,
    )
