"""BatchNorm in many processes: with the moments of all ranks' images together (`train.sync_batchnorm`), or of the rank's own.

Ioffe & Szegedy 2015, arXiv 1502.03167; ranks by themselves, as "ghost batches": Hoffer et al. 2017, arXiv 1705.08741. Unlike
torch.nn.SyncBatchNorm it works on CPUs and takes a rank without images.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from resfit.recipe import Recipe
from resfit.training.ranks import gather, shared, total
from resfit.training.runlog import say
from resfit.training.state import TrainState


def unite(state: TrainState, recipe: Recipe) -> Recipe:
    """Give every rank rank 0's weights, and BatchNorm its pass for many; return the recipe as many processes can train it."""
    values = [*state.model.state_dict().values(), *(state.average or {}).values()]
    for value, theirs in zip(values, shared(lambda: [v.cpu() for v in values]), strict=True):
        value.copy_(theirs)
    unite_norms(state.model, recipe.train.sync_batchnorm)
    if recipe.train.sync_batchnorm and (recipe.train.compile or recipe.train.cuda_graphs):
        say(
            "train.compile, train.cuda_graphs: not with train.sync_batchnorm in many processes; training goes on without"
        )
        changes = {"compile": False, "cuda_graphs": False}
        return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})
    return recipe


def unite_norms(model: nn.Module, sync: bool) -> None:
    """Give each BatchNorm of a model a training pass for many processes, in place; names and weights stay as they are."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = partial(_forward, module, sync)  # type: ignore[method-assign]


def _forward(norm: nn.BatchNorm2d, sync: bool, x: Tensor) -> Tensor:
    if not norm.training or (not sync and len(x)):
        return type(norm).forward(norm, x)
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    if not sync:  # no images: torch would make NaN of the running statistics
        return batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False)
    y, mean, var, count = SyncNorm.apply(x, norm.weight, norm.bias, norm.eps)  # type: ignore[no-untyped-call]
    assert norm.momentum is not None
    with torch.no_grad():
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(var * (count / (count - 1).clamp_min(1)), norm.momentum)  # unbiased, as torch's
    result: Tensor = y
    return result


class SyncNorm(torch.autograd.Function):
    """`(x (N, C, H, W), weight (C,), bias (C,), eps)` -> (y, mean (C,), biased variance (C,), count ()) over all ranks' x."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):  # type: ignore[no-untyped-def]
        """Normalise with the moments of all ranks, put together by Chan et al. 1979's formula in float64."""
        channels, count = x.shape[1], x.numel() // x.shape[1]
        mine = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
        if count:
            mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
            mine = torch.cat([mean.double(), var.double(), mine.new_full((1,), count)])
        parts = gather(mine)  # (ranks, 2 C + 1)
        means, variances, counts = parts[:, :channels], parts[:, channels:-1], parts[:, -1:]
        whole = counts.sum()
        mean = (means * counts).sum(0) / whole
        var = ((variances + (means - mean).square()) * counts).sum(0) / whole
        kind = torch.promote_types(x.dtype, torch.float32)
        mean, var = mean.to(kind), var.to(kind)
        ctx.save_for_backward(x, weight, mean, var, whole)
        ctx.eps = eps
        y = batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, var, whole)
        return y, mean, var, whole

    @staticmethod
    def backward(ctx, dy, *_):  # type: ignore[no-untyped-def]
        """Return the gradients: of x through all ranks' moments, of weight and bias from this rank's images alone."""
        x, weight, mean, var, whole = ctx.saved_tensors
        scale = (var + ctx.eps).rsqrt()
        dy_sum, dy_x_sum = torch.zeros_like(mean), torch.zeros_like(mean)
        if x.numel():
            dims = (0, 2, 3)
            dy_sum = dy.sum(dims, dtype=mean.dtype)
            dy_x_sum = (dy * (x - mean.view(-1, 1, 1).to(x.dtype))).sum(dims, dtype=mean.dtype) * scale
        shared = total(torch.stack([dy_sum, dy_x_sum])) / whole.to(mean.dtype)
        factor = scale if weight is None else scale * weight
        along = -factor * scale * shared[1]
        level = -factor * shared[0] - along * mean
        factor, along, level = (v.view(-1, 1, 1).to(x.dtype) for v in (factor, along, level))
        dx = dy * factor + x * along + level if ctx.needs_input_grad[0] else None
        return dx, dy_x_sum if ctx.needs_input_grad[1] else None, dy_sum if ctx.needs_input_grad[2] else None, None
