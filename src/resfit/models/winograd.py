"""3x3 convolutions in fewer multiplications, both passes, on CPUs: Lavin & Gray 2015, "Fast algorithms for convolutional
neural networks", arXiv 1509.09308, F(4x4, 3x3).

We depart from it in doing the transforms as matrix products over all channels at once, which torch has fast on any CPU. A tile
of 4x4 outputs takes 36 products a pair of channels instead of 144. Results differ from the direct form by about 1e-5 of the
largest one; they are the same for the same number of threads.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 4  # outputs a side
WINDOW = TILE + 2  # the inputs a side that they need
NARROWEST = 96  # channels below which the transforms cost what the products save (docs/log.md)
FEWEST_TILES = 32  # of a batch: with fewer, reading the four times larger weights costs more than multiplying

# The paper's matrices for the points 0, 1, -1, 2, -2: inputs (6, 6), weights (6, 3) times 24, outputs (4, 6).
_INPUTS = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
_INPUTS += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
_WEIGHTS = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
_OUTPUTS = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def _both_axes(matrix: list[list[int]], scale: int = 1) -> Tensor:
    one = torch.tensor(matrix, dtype=torch.float64, device="cpu") / scale
    return torch.kron(one, one).float()


INPUTS, WEIGHTS, OUTPUTS = (
    _both_axes(_INPUTS),
    _both_axes(_WEIGHTS, 24),
    _both_axes(_OUTPUTS),
)  # (36, 36), (36, 9), (16, 36)


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution without a stride that takes Winograd's form where it is faster: wide, in float32, on a CPU."""

    def __init__(self, width_in: int, width: int, bias: bool) -> None:
        super().__init__(width_in, width, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, width, H, W) of (N, width_in, H, W)."""
        if not suits(x, self.weight):
            return super().forward(x)
        made: Tensor = Winograd.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return made if self.bias is None else made + self.bias[:, None, None]


def suits(x: Tensor, weight: Tensor) -> bool:
    """Return whether Winograd's form is the faster one for x (N, in, H, W) and weight (out, in, 3, 3)."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if min(weight.shape[:2]) < NARROWEST or torch.compiler.is_compiling():
        return False
    return len(x) * _tiles(x.shape[2]) * _tiles(x.shape[3]) >= FEWEST_TILES


class Winograd(torch.autograd.Function):
    """`(x (N, in, H, W), weight (out, in, 3, 3)) -> (N, out, H, W)`, padded by one pixel, channels last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Convolve; the transformed inputs are kept for the weight's gradient."""
        spread = spread_inputs(x)
        ctx.save_for_backward(spread, weight)
        ctx.side = x.shape[2:]
        return gather_outputs(torch.bmm(spread, spread_weights(weight)), len(x), *x.shape[2:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients: of x, the convolution with the weights turned round; of weight, the forward's transpose."""
        spread, weight = ctx.saved_tensors
        height, width = ctx.side
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            turned = spread_weights(weight.flip(2, 3).transpose(0, 1))
            of_x = gather_outputs(torch.bmm(spread_inputs(grad), turned), len(grad), height, width)
        if ctx.needs_input_grad[1]:
            products = torch.bmm(spread.transpose(1, 2), _spread_gradient(grad))
            places = (WEIGHTS.T @ products.view(WINDOW**2, -1)).view(3, 3, weight.shape[1], weight.shape[0])
            of_weight = places.permute(3, 2, 0, 1)
        return of_x, of_weight


def spread_inputs(x: Tensor) -> Tensor:
    """Return the transformed windows (36, tiles, in) of x (N, in, H, W) padded by one pixel."""
    count, channels, height, width = x.shape
    rows, columns = _tiles(height), _tiles(width)
    right, below = 1 + columns * TILE - width, 1 + rows * TILE - height
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
    image, row, column, _ = padded.stride()
    windows = padded.as_strided(
        (WINDOW, WINDOW, count, rows, columns, channels), (row, column, image, row * TILE, column * TILE, 1)
    )
    return (INPUTS @ windows.reshape(WINDOW**2, -1)).view(WINDOW**2, -1, channels)


def spread_weights(weight: Tensor) -> Tensor:
    """Return the transformed weights (36, in, out) of (out, in, 3, 3)."""
    return (WEIGHTS @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(WINDOW**2, weight.shape[1], weight.shape[0])


def gather_outputs(products: Tensor, count: int, height: int, width: int) -> Tensor:
    """Return (N, out, H, W), channels last, of the products (36, tiles, out)."""
    rows, columns, channels = _tiles(height), _tiles(width), products.shape[2]
    tiles = (OUTPUTS @ products.view(WINDOW**2, -1)).view(TILE, TILE, count, rows, columns, channels)
    whole = tiles.permute(2, 3, 0, 4, 1, 5).reshape(count, rows * TILE, columns * TILE, channels)
    return (
        whole[:, :height, :width].permute(0, 3, 1, 2).clone(memory_format=torch.channels_last)
    )  # never a view: ReLUs are in place


def _spread_gradient(grad: Tensor) -> Tensor:
    """Return the gradient of the products (36, tiles, out) from that of the outputs (N, out, H, W)."""
    count, channels, height, width = grad.shape
    rows, columns = _tiles(height), _tiles(width)
    padded = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, columns * TILE - width, 0, rows * TILE - height))
    tiles = padded.view(count, rows, TILE, columns, TILE, channels).permute(2, 4, 0, 1, 3, 5).reshape(TILE**2, -1)
    return (OUTPUTS.T @ tiles).view(WINDOW**2, -1, channels)


def _tiles(side: int) -> int:
    return -(-side // TILE)
