"""A graph as an ONNX file: input `images` uint8 (batch, 3, S, S), output `logits` float32 (batch, K), any batch size."""

import logging
import warnings
from collections.abc import Mapping

import onnx
import torch

from resfit.evaluation.runtime import seal
from resfit.shipping.graph import Graph

OPSET = 20  # the first with GELU as one operator, which int8 needs; onnxruntime 1.17 (2024) and later read it


def to_onnx(graph: Graph, size: int) -> onnx.ModelProto:
    """Trace a graph for images (N, 3, size, size) and return the model, checked by onnx's checker."""
    example = (torch.zeros(2, 3, size, size, dtype=torch.uint8),)  # 2: a batch of 1 would be taken for a constant
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            program = torch.onnx.export(
                graph,
                example,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            assert program is not None
    finally:
        quiet.setLevel(level)
    model: onnx.ModelProto = program.model_proto
    strip(model)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of each node: paths of this machine, and a third of a small file."""
    for part in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.value_info, model.graph):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    del model.metadata_props[:]


def encode(model: onnx.ModelProto, metadata: Mapping[str, str]) -> bytes:
    """Return the file's bytes with these metadata, sealed; raises onnx's own error where its checker refuses the model."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.producer_name, whole.producer_version = "resfit", ""
    onnx.helper.set_model_props(whole, dict(metadata))
    onnx.checker.check_model(whole, full_check=True)
    return seal(whole.SerializeToString())
