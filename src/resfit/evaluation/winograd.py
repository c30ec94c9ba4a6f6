"""A 3x3 convolution in fewer multiplications, for prediction on CPUs: Lavin & Gray 2015, "Fast algorithms for convolutional
neural networks", arXiv 1509.09308, F(4x4, 3x3).

We depart from it in doing both transforms as matrix products over all channels at once, which torch has fast on any CPU. A
tile of 4x4 outputs takes 36 products a pair of channels instead of 144; on AVX2, from 96 channels on, that is 1.3 to 1.8
times as fast as oneDNN's direct convolution (docs/log.md).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4  # outputs a side
WINDOW = TILE + 2  # the inputs a side that they need
NARROWEST = 96  # channels below which the transforms cost what the products save
FEWEST_TILES = 32  # of a batch: with fewer, reading the four times larger weights costs more than multiplying

# The paper's matrices for the points 0, 1, -1, 2, -2: inputs, weights, outputs.
_INPUTS = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
_INPUTS += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
_WEIGHTS = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # times 24
_OUTPUTS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def suits(conv: nn.Conv2d) -> bool:
    """Return whether a convolution is of the kind, and wide enough, that `WinogradConv` does faster."""
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    plain = type(conv) is nn.Conv2d and shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
    return plain and min(conv.in_channels, conv.out_channels) >= NARROWEST


class WinogradConv(nn.Module):
    """Do what a convolution that `suits` does, to about 1e-5 of its largest output; small batches are left to it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        weights = torch.tensor(_WEIGHTS, dtype=torch.float64) / 24
        inputs, outputs = (torch.tensor(rows, dtype=torch.float32) for rows in (_INPUTS, _OUTPUTS))
        by_place = conv.weight.detach().permute(2, 3, 1, 0).reshape(9, -1).double()
        products = (torch.kron(weights, weights) @ by_place).float()
        self.products = products.view(-1, conv.in_channels, conv.out_channels)  # (36, in, out)
        self.inputs, self.outputs = torch.kron(inputs, inputs), torch.kron(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, out, H, W) of (N, in, H, W), channels last."""
        count, channels, height, width = x.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        tiles = count * rows * columns
        if tiles < FEWEST_TILES:
            direct: Tensor = self.conv(x)
            return direct
        right, below = 1 + columns * TILE - width, 1 + rows * TILE - height
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
        image, row, column, _ = padded.stride()
        windows = padded.as_strided(
            (WINDOW, WINDOW, count, rows, columns, channels), (row, column, image, row * TILE, column * TILE, 1)
        )
        spread = (self.inputs @ windows.reshape(WINDOW * WINDOW, -1)).view(-1, tiles, channels)
        made = self.outputs @ torch.bmm(spread, self.products).view(WINDOW * WINDOW, -1)
        done = torch.empty(count, rows * TILE, columns * TILE, self.conv.out_channels)
        places = done.view(count, rows, TILE, columns, TILE, -1)
        places.copy_(made.view(TILE, TILE, count, rows, columns, -1).permute(2, 3, 0, 4, 1, 5))
        if self.conv.bias is not None:
            done += self.conv.bias
        return done[:, :height, :width].permute(0, 3, 1, 2)
