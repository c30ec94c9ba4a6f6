"""A residual network with depthwise-separable convolutions (Howard et al. 2017, arXiv 1704.04861). See separable."""

from torch import nn

from resfit.models.layers import BasicBlock, ResNet, conv
from resfit.models.spec import ModelSpec


def build(spec: ModelSpec) -> nn.Module:
    """Build a `separable` spec: (N, channels, H, W) images to (N, classes) logits. The stem is an ordinary one."""
    return ResNet(spec, _block)


def _block(spec: ModelSpec, width_in: int, width: int, stride: int, rate: float) -> nn.Module:
    return BasicBlock(spec, width_in, width, stride, rate, make_conv=_separable)


def _separable(width_in: int, width: int, kernel: int, stride: int, bias: bool) -> nn.Module:
    return nn.Sequential(
        conv(width_in, width_in, kernel, stride, bias, groups=width_in),
        nn.BatchNorm2d(width_in),
        nn.ReLU(inplace=True),
        conv(width_in, width, 1, 1, bias),
    )
