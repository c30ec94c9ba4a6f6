"""The residual network of He et al. 2015, "Deep residual learning", arXiv 1512.03385; see resnet.py."""

from torch import nn

from resfit.models.layers import BasicBlock, ResNet
from resfit.models.spec import ModelSpec


def build(spec: ModelSpec) -> nn.Module:
    """Build a `resnet` spec: (N, channels, H, W) images to (N, classes) logits."""
    return ResNet(spec, BasicBlock)
