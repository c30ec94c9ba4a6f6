"""The wide residual network of Zagoruyko & Komodakis 2016, "Wide residual networks", arXiv 1605.07146; see wrn.py."""

from torch import Tensor, nn
from torch.nn import functional as F

from resfit.models.layers import SqueezeExcitation, conv, drop_branches, pooled, shortcut, stages, stem, stem_pooled
from resfit.models.spec import ModelSpec


class PreActivatedBlock(nn.Module):
    """Add to the shortcut what BatchNorm, ReLU, convolution, twice over, make of (N, width_in, H, W)."""

    def __init__(self, spec: ModelSpec, width_in: int, width: int, stride: int, rate: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width_in)
        self.conv1 = conv(width_in, width, spec.kernel, stride, spec.conv_bias)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, spec.kernel, 1, spec.conv_bias)
        self.se = SqueezeExcitation(width, spec.se_reduction) if spec.se_reduction else None
        self.shortcut = shortcut(spec, width_in, width, stride)
        self.dropout, self.stochastic_depth = spec.dropout, rate

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride), rounded up."""
        active = F.relu(self.norm1(x), inplace=True)
        branch: Tensor = F.relu(self.norm2(self.conv1(active)), inplace=True)
        if self.dropout:
            branch = F.dropout(branch, self.dropout, self.training)
        branch = self.conv2(branch)
        if self.se is not None:
            branch = self.se(branch)
        if self.stochastic_depth and self.training:
            branch = drop_branches(branch, self.stochastic_depth)
        # A projection reads the activated input, an identity the raw one, as in the authors' code.
        branch += self.shortcut(active if len(self.shortcut) else x)
        return branch


class WideResNet(nn.Module):
    """Stem without BatchNorm, stages of pre-activated blocks, BatchNorm and ReLU, average pool, one linear layer."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.stem = stem(spec)
        self.stages = stages(spec, PreActivatedBlock)
        self.norm = nn.BatchNorm2d(spec.widths[-1])
        self.head = nn.Linear(spec.features, spec.classes)
        self.pool, self.stem_stride = spec.pool, spec.stem_stride

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, channels, H, W)."""
        x = self.stem(images)
        x = stem_pooled(x) if self.stem_stride == 4 else x
        x = F.relu(self.norm(self.stages(x)), inplace=True)
        logits: Tensor = self.head(pooled(x, self.pool))
        return logits


def build(spec: ModelSpec) -> nn.Module:
    """Build a `wrn` spec: (N, channels, H, W) images to (N, classes) logits."""
    return WideResNet(spec)
