"""The residual network with a whitening first convolution (Page 2019; Jordan 2024, arXiv 2404.00498); see whitened.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resfit.models.layers import conv
from resfit.models.spec import ModelSpec
from resfit.models.whitened import WHITENING_KERNEL

EPS = 5e-4  # added to the variances that whitening divides by, as in Jordan 2024
FIT_BATCH = 100  # images that are unfolded at once
MOMENTUM = 0.4  # of the new batch in BatchNorm's running statistics: trainings are short


class Whitening(nn.Conv2d):
    """A convolution whose filters are the eigenvectors of image patches over their deviations, each with both signs.

    Until `fit` has seen images they are drawn at random. Only its bias is trained.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, WHITENING_KERNEL)
        fixed = self.weight.data
        del self.weight
        self.register_buffer("weight", fixed)

    @torch.no_grad()
    def fit(self, inputs: Tensor) -> None:
        """Set the filters from normalised images (N, channels, H, W), on the CPU and in float64."""
        total = torch.zeros((self.weight[0].numel(),) * 2, dtype=torch.float64)
        for part in torch.split(inputs.cpu(), FIT_BATCH):
            patches = F.unfold(part.double(), WHITENING_KERNEL)  # (n, channels * kernel * kernel, positions)
            total += torch.einsum("nip,njp->ij", patches, patches) / (len(inputs) * patches.shape[2])
        variances, vectors = torch.linalg.eigh(total)
        filters = (vectors / (variances + EPS).sqrt()).T.reshape(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))


class BiasNorm(nn.BatchNorm2d):
    """BatchNorm that trains a bias and no scale."""

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=MOMENTUM)
        del self.weight
        self.register_buffer("weight", torch.ones(width))


class PooledConv(nn.Module):
    """Convolution, max-pool by `stride`, BatchNorm and GELU: (N, width_in, H, W) to (N, width, H // stride, W // stride)."""

    def __init__(self, width_in: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = identity_conv(width_in, width, kernel)
        self.norm = BiasNorm(width)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the new map."""
        x = self.conv(x)
        x = F.max_pool2d(x, self.stride) if self.stride > 1 else x
        return F.gelu(self.norm(x))


class ResidualConv(nn.Module):
    """Add to (N, width, H, W) its convolution with BatchNorm, then GELU."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = identity_conv(width, width, kernel)
        self.norm = BiasNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the new map, of the same shape."""
        return F.gelu(self.norm(self.conv(x)) + x)


class WhitenedNet(nn.Module):
    """Whitening convolution and GELU, stages, global max-pool, one linear layer without bias, divided by its inputs."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.stem = Whitening(spec.channels, spec.stem_width)
        self.stages = nn.Sequential()
        width_in = spec.stem_width
        for width, blocks, stride in zip(spec.widths, spec.blocks_per_stage, spec.strides, strict=True):
            rest = (ResidualConv(width, spec.kernel) for _ in range(blocks))
            self.stages.append(nn.Sequential(PooledConv(width_in, width, spec.kernel, stride), *rest))
            width_in = width
        self.head = nn.Linear(width_in, spec.classes, bias=False)
        with torch.no_grad():
            self.head.weight.normal_()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, channels, H, W)."""
        x = self.stages(F.gelu(self.stem(images)))
        logits: Tensor = self.head(F.adaptive_max_pool2d(x, 1).flatten(1)) / self.head.in_features
        return logits

    def fit(self, inputs: Tensor) -> None:
        """Set what is computed from training images and not trained: the whitening filters, from normalised images."""
        self.stem.fit(inputs)


def identity_conv(width_in: int, width: int, kernel: int) -> nn.Conv2d:
    """Make a convolution whose first filters hand each input channel on (Zagoruyko & Komodakis 2017, arXiv 1706.00388)."""
    made = conv(width_in, width, kernel, 1, False)
    nn.init.dirac_(made.weight.data[: made.in_channels])
    return made


def build(spec: ModelSpec) -> nn.Module:
    """Build a `whitened` spec: (N, channels, H, W) images to (N, classes) logits."""
    return WhitenedNet(spec)
