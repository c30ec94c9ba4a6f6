"""The peak of numbers alive at once against a walk through the network's own graph that keeps every map until its last use."""

import operator

import pytest
import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from resfit.models.families import build, cost
from resfit.models.networks import network

SPECS = [
    "resnet-20",
    "r1-4",
    "r4-deeper",
    "wrn-16-4",
    "resnet:widths=8,24:blocks_per_stage=1,2:strides=1,1",
    "resnet:widths=8,24,16:blocks_per_stage=2,1,1:strides=2,2,1:shortcut_kernel=3",
    "wrn:widths=16,40,24:blocks_per_stage=1,2,1:strides=1,1,2",
    "wrn:widths=8,8,64:blocks_per_stage=2,1,3:image_size=20",
    "separable:widths=8,24,16:blocks_per_stage=2,1,1",
    "separable:widths=40,16,64:blocks_per_stage=1,1,2:strides=1,1,1:image_size=9",
    "whitened:widths=64,256,256:blocks_per_stage=1,1,1",
    "whitened:widths=8,16,64:blocks_per_stage=2,1,1:image_size=24",
]
LARGER = [  # where the stem decides: at the convolution, at its max-pool (a narrow image, a wide stem), and where a block does
    "resnet:widths=8,16:blocks_per_stage=1,1:image_size=96",
    "resnet:widths=4,8,64:blocks_per_stage=1,1,1:image_size=129:stem_width=1",
    "resnet:widths=8,16:blocks_per_stage=1,1:image_size=131:stem_width=24:channels=1",
    "wrn:widths=8,16:blocks_per_stage=1,1:image_size=160:channels=1:stem_width=24",
    "wrn:widths=24,48:blocks_per_stage=1,1:image_size=129:strides=1,1",
    "separable:widths=8,16:blocks_per_stage=1,2:image_size=97:stem_stride=4",
    "separable:widths=8,16:blocks_per_stage=1,1:image_size=96:stem_stride=1",
]


class Leaves(fx.Tracer):
    def is_leaf_module(self, module, name):
        return isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)


def walk(model: nn.Module, channels: int, side: int) -> int:
    """Return the most numbers alive at once, for one image."""
    graph = Leaves().trace(model.eval())
    modules = dict(model.named_modules())
    ShapeProp(fx.GraphModule(model, graph)).propagate(torch.zeros(1, channels, side, side))
    last = {}
    for place, node in enumerate(graph.nodes):
        for given in node.all_input_nodes:
            last[given] = place
    buffers, home, most = {}, {}, 0
    for place, node in enumerate(graph.nodes):
        if node.op == "output":
            break
        kind = modules.get(node.target) if node.op == "call_module" else node.target
        inputs = node.all_input_nodes
        in_place = isinstance(kind, nn.BatchNorm2d) or kind in (nn.functional.relu, nn.functional.gelu)
        if kind in (operator.iadd, operator.add):  # into the branch, which nothing reads again
            in_place = True
        free = bool(inputs) and all(last[other] <= place for other in home if home[other] == home[inputs[0]])
        if (in_place and free) or node.target in ("flatten", "size"):
            home[node] = home[inputs[0]]
        else:
            home[node] = node
            buffers[node] = node.meta["tensor_meta"].shape.numel()
        alive = {home[node], *(home[other] for other in home if other is not node and last.get(other, -1) >= place)}
        most = max(most, sum(buffers[one] for one in alive))
    return most


@pytest.mark.parametrize("name", [*SPECS, *LARGER])
def test_the_peak_is_that_of_a_walk_through_the_graph(name):
    spec = network(name)
    assert cost(spec).peak == walk(build(spec), spec.channels, spec.image_size)
