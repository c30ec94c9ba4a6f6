"""A network made quick for prediction on a CPU: each BatchNorm folded into the convolution before it (Jacob et al. 2017,
arXiv 1712.05877, section 3.2).

Only what is certain is changed: a BatchNorm whose input is a convolution's output, or the max-pool of one, that nothing else
reads. A network that torch.fx cannot trace, or that answers differently once folded, stays as it is.
"""

import torch
from torch import fx, nn
from torch.nn.functional import max_pool2d
from torch.nn.utils.fusion import fuse_conv_bn_eval

CLOSE = (
    2e-5  # the largest difference of a probability that is taken for rounding: a fifth of what predictions may differ
)
PROBES = 2  # noise images that are compared


def fold(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Return a network in evaluation mode that answers as `model` does for images (N, *shape), sooner; or `model` itself.

    `model` is on the CPU and in evaluation mode; it is not changed, and weights that need no folding are shared with it.
    """
    try:
        folded = _norms_folded(_trace(model))
    except Exception:  # a family from outside may do in its forward pass what no tracer follows
        return model
    folded = folded.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return folded if _agree(model, folded, shape) else model


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Keep convolutions and BatchNorms whole, the families' own kinds of them too."""
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def _trace(model: nn.Module) -> fx.GraphModule:
    return fx.GraphModule(model, _Tracer().trace(model))


def _norms_folded(traced: fx.GraphModule) -> fx.GraphModule:
    modules, calls = dict(traced.named_modules()), _calls(traced)
    for norm, name in calls:
        last = before = norm.args[0]
        batch_norm = modules[name]
        if not isinstance(batch_norm, nn.BatchNorm2d) or batch_norm.running_mean is None:
            continue
        if isinstance(last, fx.Node) and _hands_on_scales(last, batch_norm):
            before = last.args[0]
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        place = str(before.target)
        conv = modules[place]
        if isinstance(conv, nn.Conv2d) and _once(calls, place) and _once(calls, name):
            modules[place] = fuse_conv_bn_eval(conv, batch_norm)
            traced.set_submodule(place, modules[place])
            norm.replace_all_uses_with(last)  # type: ignore[arg-type]
            traced.graph.erase_node(norm)
    traced.delete_all_unused_submodules()  # the folded BatchNorms, which an export would write
    traced.recompile()
    return traced


def _hands_on_scales(node: fx.Node, batch_norm: nn.BatchNorm2d) -> bool:
    """Return whether `node` is a max-pool alone before a BatchNorm of positive scales: which comes first is then the same."""
    if node.op != "call_function" or node.target is not max_pool2d or len(node.users) > 1:
        return False
    return batch_norm.weight is not None and bool((batch_norm.weight > 0).all())


def _calls(traced: fx.GraphModule) -> list[tuple[fx.Node, str]]:
    return [(node, str(node.target)) for node in traced.graph.nodes if node.op == "call_module"]


def _once(calls: list[tuple[fx.Node, str]], name: str) -> bool:
    return sum(called == name for _, called in calls) == 1


@torch.inference_mode()
def _agree(model: nn.Module, folded: nn.Module, shape: tuple[int, int, int]) -> bool:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(PROBES, *shape, generator=generator).to(memory_format=torch.channels_last)
    probs, again = (network(images).softmax(1) for network in (model, folded))
    return bool((probs - again).abs().max() <= CLOSE)  # False for NaN
