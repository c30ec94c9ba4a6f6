"""A graph for PyTorch: `.pt2`, a torch.export program that needs no resfit, and `.safetensors`, its folded weights alone."""

import io
import json
import warnings
from collections.abc import Mapping

import torch
from safetensors.torch import load, save

from resfit.models.families import build
from resfit.models.spec import stored_spec
from resfit.shipping.graph import Graph, make_graph

METADATA = "metadata.json"  # in a .pt2: torch.export.load(file, extra_files={"metadata.json": ""}) fills it in


def to_pt2(graph: Graph, size: int) -> torch.export.ExportedProgram:
    """Trace a graph for images (N, 3, size, size) uint8, N any number from 1 on."""
    example = (torch.zeros(2, 3, size, size, dtype=torch.uint8),)
    with torch.no_grad():
        program = torch.export.export(graph, example, dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def encode_pt2(program: torch.export.ExportedProgram, metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes."""
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, held, extra_files={METADATA: json.dumps(dict(metadata))})
    return held.getvalue()


def read_pt2(data: bytes) -> torch.nn.Module:
    """Return the network in a file's bytes: images uint8 (N, 3, S, S) to logits float32 (N, K)."""
    return torch.export.load(io.BytesIO(data)).module()


def encode_safetensors(graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes: every weight and buffer under its name in the graph, metadata in the header."""
    tensors = {name: value.detach().contiguous() for name, value in graph.state_dict().items()}
    return save(tensors, metadata={"format": "pt", **metadata})


def read_safetensors(data: bytes) -> Graph:
    """Return the graph in a file's bytes, built by its spec, folded, and given the file's weights."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    ours, tensors = json.loads(header["resfit"]), load(data)
    model, pre = build(stored_spec(ours["spec"])).eval(), ours["preprocessing"]
    graph = make_graph(model, pre["mean"], pre["std"], pre["size"], ours["precision"] == "float16")
    graph.load_state_dict(tensors)
    return graph
