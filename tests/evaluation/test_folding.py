"""A folded network against the unfolded one, and what must be left alone."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resfit.evaluation.folding import fold
from resfit.models.families import build
from resfit.models.spec import parse_spec

SPECS = {  # the BatchNorms that no convolution stands right before
    "resnet:widths=8,16:blocks_per_stage=1,2:image_size=12:dropout=0.2:stochastic_depth=0.1": 0,  # a subsampled projection
    "resnet:widths=96,104:blocks_per_stage=1,1:image_size=12:se_reduction=8": 0,
    "resnet:widths=16,32:blocks_per_stage=1,1:image_size=8:conv_bias=true:shortcut_norm=false:kernel=5": 0,
    "wrn:widths=96,100:blocks_per_stage=1,2:image_size=10": 3,
    "whitened:widths=96,100:blocks_per_stage=1,2:image_size=20": 0,  # two behind a max-pool
    "separable:widths=16,32:blocks_per_stage=1,1:image_size=8": 0,
    "resnet:widths=16,32:blocks_per_stage=1,1:image_size=16:stem_stride=4": 0,
    "wrn:widths=16,32:blocks_per_stage=1,1:image_size=16:stem_stride=4:stem_width=8": 2,  # one across the max-pool
}


def lived_in(model: nn.Module) -> nn.Module:
    """Give every BatchNorm the statistics and weights of one that was trained."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for name, module in model.named_modules())


def calls_norms(model: nn.Module) -> int:
    names = {str(node.target) for node in model.graph.nodes if node.op == "call_module"}
    return sum(isinstance(model.get_submodule(name), nn.BatchNorm2d) for name in names)


@pytest.mark.parametrize("text", SPECS)
@torch.inference_mode()
def test_a_folded_network_answers_as_the_unfolded_one(text):
    spec = parse_spec(text)
    model = lived_in(build(spec, 3)).to(memory_format=torch.channels_last)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold(model, (3, spec.image_size, spec.image_size))
    assert folded is not model
    assert calls_norms(folded) == SPECS[text] < norms(model)
    images = torch.randn(33, 3, spec.image_size, spec.image_size)
    for batch in (images, images[:1]):
        torch.testing.assert_close(folded(batch), model(batch), atol=1e-4, rtol=1e-4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])


class PoolBetween(nn.Module):
    """A convolution, a max-pool, a BatchNorm with a negative scale: to fold across the pool would be wrong."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(F.max_pool2d(self.conv(x), 2)))
        return self.head(x.mean((2, 3)))


class ReadTwice(PoolBetween):
    """What the convolution puts out is read beside the BatchNorm too."""

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        return self.head((self.norm(made) + made).mean((2, 3)))


class CalledTwice(PoolBetween):
    """One convolution with two inputs: its BatchNorm follows only one of them."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.norm(self.conv(x)) + self.conv(x.flip(-1))).mean((2, 3)))


@pytest.mark.parametrize("make", [PoolBetween, ReadTwice, CalledTwice])
@torch.inference_mode()
def test_what_only_looks_alike_is_left_alone(make):
    model = lived_in(make())
    model.norm.weight[:2] *= -1
    folded = fold(model, (3, 12, 12))
    assert calls_norms(folded) == 1
    images = torch.randn(5, 3, 12, 12)
    torch.testing.assert_close(folded(images), model(images))


@torch.inference_mode()
def test_positive_scales_are_folded_across_a_max_pool():
    model = lived_in(PoolBetween())
    folded = fold(model, (3, 12, 12))
    assert calls_norms(folded) == 0
    images = torch.randn(5, 3, 12, 12)
    torch.testing.assert_close(folded(images), model(images))


class Branches(PoolBetween):
    """Cannot be traced: what it does depends on the values."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.mean() > 0 else -x)


class Counts(PoolBetween):
    """Can be traced, to something else."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.calls


@pytest.mark.parametrize("make", [Branches, Counts])
def test_a_network_that_cannot_be_folded_is_given_back(make):
    model = lived_in(make())
    assert fold(model, (3, 12, 12)) is model
