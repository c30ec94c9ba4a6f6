"""The whitened family: its counts, what whitening does to patches, and the specs it refuses."""

import pytest
import torch
from torch import nn

from resfit.errors import UsageError
from resfit.models.families import build, cost
from resfit.models.spec import parse_spec

SMALL = "whitened:widths=8,16:blocks_per_stage=1,2"


def photographs() -> torch.Tensor:
    """Smooth random images, float32 (40, 3, 16, 16): neighbours are alike, and so are the channels."""
    coarse = torch.randn(40, 3, 5, 5, generator=torch.Generator().manual_seed(0)) + torch.randn(40, 1, 5, 5)
    return nn.functional.interpolate(coarse, (16, 16), mode="bicubic")


def test_the_published_network_has_its_published_count() -> None:
    """Jordan's airbench94_muon: 1,971,640 with the 288 whitening weights that are not trained."""
    total = cost(parse_spec("whitened:widths=64,256,256:blocks_per_stage=1,1,1"))
    by_hand = 24 + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 4 * 256 + 2 * 64 + 2560
    assert total.params == by_hand
    # sides 31, 15, 7 and 3: a convolution comes before its stage's pool
    convs = 24 * 64 * 31**2 + 64 * 64 * 15**2 + 64 * 256 * 15**2 + 2 * 256 * 256 * 7**2 + 256 * 256 * 3**2
    assert total.macs == 12 * 24 * 31**2 + 9 * convs + 2560


def test_whitened_patches_are_uncorrelated_and_of_one_variance() -> None:
    model, images = build(parse_spec(SMALL)), photographs()
    model.fit(images)
    out = nn.functional.conv2d(images, model.stem.weight).transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(out[12:], -out[:12])  # both signs
    second = out[:12] @ out[:12].T / out.shape[1]
    variances = second.diagonal()
    torch.testing.assert_close(second - torch.diag(variances), torch.zeros(12, 12).double(), atol=2e-3, rtol=0)
    assert variances.max() == pytest.approx(1, abs=0.01)  # where the patches' own variance is far above EPS


def test_what_is_computed_from_images_is_saved_and_not_trained() -> None:
    model = build(parse_spec(SMALL))
    assert "stem.weight" in model.state_dict()
    assert "stem.weight" not in dict(model.named_parameters())
    assert not any(name.endswith("norm.weight") for name, _ in model.named_parameters())


def test_a_convolution_begins_as_the_identity_on_its_inputs() -> None:
    block = build(parse_spec(SMALL)).stages[0][1]
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(block.conv(x), x)
    first = build(parse_spec("whitened:widths=30:blocks_per_stage=1")).stages[0][0]
    y = torch.randn(2, 24, 6, 6)
    torch.testing.assert_close(first.conv(y)[:, :24], y)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("se_reduction=4", "se_reduction: the family whitened has none"),
        ("dropout=0.1", "dropout: the family whitened has none"),
        ("pool=2", "pool: the family whitened has none"),
        ("stem_width=16", "stem_width: whitening 3 channels takes 24 filters"),
        ("channels=1", "stem_width: whitening 1 channels takes 8 filters"),
        ("image_size=4", "image_size: 4 is too small for 2 stages"),
    ],
)
def test_what_it_has_not_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_spec(f"{SMALL}:{text}")
