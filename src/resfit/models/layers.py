"""The modules that the families share, above all the residual block of He et al. 2015, arXiv 1512.03385, and
squeeze-and-excitation, Hu et al. 2017, arXiv 1709.01507 (we depart from it in leaving out its biases, as r5 does).

ReLUs and sums are done in place on tensors that no backward pass reads.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resfit.models.cost import STEM_KERNEL
from resfit.models.spec import ModelSpec
from resfit.models.winograd import Conv3x3

NARROW = 16  # input channels below which a strided 1x1 convolution is not safe; see SubsampledConv

MakeConv = Callable[[int, int, int, int, bool], nn.Module]
MakeBlock = Callable[[ModelSpec, int, int, int, float], nn.Module]


def conv(width_in: int, width: int, kernel: int, stride: int, bias: bool, groups: int = 1) -> nn.Conv2d:
    """Make a convolution; an odd kernel keeps the side of the map at stride 1, a 2x2 one is not padded."""
    if (kernel, stride, groups) == (3, 1, 1):
        return Conv3x3(width_in, width, bias)
    return nn.Conv2d(width_in, width, kernel, stride, (kernel - 1) // 2, groups=groups, bias=bias)


def stem(spec: ModelSpec) -> nn.Conv2d:
    """Make the first convolution; what is left of `stem_stride` is for `stem_pooled`."""
    return conv(spec.channels, spec.stem_width, STEM_KERNEL, min(spec.stem_stride, 2), spec.conv_bias)


def stem_pooled(x: Tensor) -> Tensor:
    """Return (N, C, H / 2, W / 2), rounded up, of (N, C, H, W): the max-pool of He et al. 2015, for a stem_stride of 4."""
    return F.max_pool2d(x, 3, 2, 1)


def shortcut(spec: ModelSpec, width_in: int, width: int, stride: int) -> nn.Sequential:
    """Make a block's shortcut: a projection where size or width changes, else an empty one, which is the identity."""
    if stride == 1 and width_in == width:
        return nn.Sequential()
    narrow = spec.shortcut_kernel == 1 and stride > 1 and width_in < NARROW
    make = SubsampledConv if narrow else conv
    projection = make(width_in, width, spec.shortcut_kernel, stride, spec.conv_bias)
    return nn.Sequential(projection, nn.BatchNorm2d(width)) if spec.shortcut_norm else nn.Sequential(projection)


def stages(spec: ModelSpec, block: MakeBlock) -> nn.Sequential:
    """Make all stages, of `block(spec, width_in, width, stride, rate)`; the first block of a stage changes size and width.

    `rate` is the block's own of stochastic depth: it grows linearly to the last block's.
    """
    made, done, total = nn.Sequential(), 0, sum(spec.blocks_per_stage)
    for stage in spec.stages():
        blocks = []
        for first in (True, *(False,) * (stage.blocks - 1)):
            done += 1
            width_in, stride = (stage.width_in, stage.stride) if first else (stage.width, 1)
            blocks.append(block(spec, width_in, stage.width, stride, spec.stochastic_depth * done / total))
        made.append(nn.Sequential(*blocks))
    return made


def drop_branches(branch: Tensor, rate: float) -> Tensor:
    """Zero whole images' branches of (N, C, H, W) with probability `rate`, and scale the others to keep the mean.

    Huang et al. 2016, "Deep networks with stochastic depth", arXiv 1603.09382: the rate grows linearly to the last block; we
    draw per image, and scale in training instead of in evaluation.
    """
    kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= rate
    return branch * (kept / (1 - rate)).to(branch.dtype)


def pooled(images: Tensor, pool: int) -> Tensor:
    """Average (N, C, H, W) over windows of `pool` by `pool`, or over the whole map where it is 0, to (N, features)."""
    averaged = F.avg_pool2d(images, pool) if pool else F.adaptive_avg_pool2d(images, 1)
    return averaged.flatten(1)


class SubsampledConv(nn.Conv2d):
    """A 1x1 convolution with a stride, done as one without on the positions it reads: the same numbers.

    torch 2.13's backward pass of the strided form corrupts the heap on CPUs for fewer than 16 channels, channels last, from
    56x56 on (found in use; see docs/log.md). Wider ones keep the strided form, which is 5 to 10% faster a step.
    """

    def __init__(self, width_in: int, width: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__(width_in, width, kernel, stride, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride), rounded up."""
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)


class SqueezeExcitation(nn.Module):
    """Scale each channel of (N, C, H, W) by a gate in (0, 1) computed from the means of all channels."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, width // reduction, bias=False)
        self.expand = nn.Linear(width // reduction, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` scaled."""
        gate: Tensor = self.expand(F.relu(self.reduce(pooled(x, 0)))).sigmoid()
        return x * gate[:, :, None, None]


class BasicBlock(nn.Module):
    """Add to the shortcut what two convolutions with BatchNorm make of (N, width_in, H, W); `make_conv` makes them."""

    def __init__(
        self, spec: ModelSpec, width_in: int, width: int, stride: int, rate: float, make_conv: MakeConv = conv
    ) -> None:
        super().__init__()
        self.conv1 = make_conv(width_in, width, spec.kernel, stride, spec.conv_bias)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = make_conv(width, width, spec.kernel, 1, spec.conv_bias)
        self.norm2 = nn.BatchNorm2d(width)
        self.se = SqueezeExcitation(width, spec.se_reduction) if spec.se_reduction else None
        self.shortcut = shortcut(spec, width_in, width, stride)
        self.dropout, self.stochastic_depth = spec.dropout, rate

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H / stride, W / stride), rounded up."""
        branch: Tensor = F.relu(self.norm1(self.conv1(x)), inplace=True)
        if self.dropout:
            branch = F.dropout(branch, self.dropout, self.training)
        branch = self.norm2(self.conv2(branch))
        if self.se is not None:
            branch = self.se(branch)
        if self.stochastic_depth and self.training:
            branch = drop_branches(branch, self.stochastic_depth)
        branch += self.shortcut(x)
        return F.relu(branch, inplace=True)


class ResNet(nn.Module):
    """Stem with BatchNorm and ReLU, stages of `block`, average pool, one linear layer."""

    def __init__(self, spec: ModelSpec, block: MakeBlock) -> None:
        super().__init__()
        self.stem = stem(spec)
        self.norm = nn.BatchNorm2d(spec.stem_width)
        self.stages = stages(spec, block)
        self.head = nn.Linear(spec.features, spec.classes)
        self.pool, self.stem_stride = spec.pool, spec.stem_stride

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, channels, H, W)."""
        x = F.relu(self.norm(self.stem(images)), inplace=True)
        x = stem_pooled(x) if self.stem_stride == 4 else x
        logits: Tensor = self.head(pooled(self.stages(x), self.pool))
        return logits
