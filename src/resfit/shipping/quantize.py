"""Static int8 for ONNX Runtime: float32 tensors between Q and DQ nodes, whose scales come from training images.

Jacob et al. 2017, "Quantization and training of neural networks for efficient integer-arithmetic-only inference", arXiv
1712.05877; scales of weights one a channel as in Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient
inference: A whitepaper", arXiv 1806.08342. Weights take 7 of the 8 bits: on x86 processors without VNNI the products of two
pairs are added up in 16 bits and would be cut off there, so that an answer, and the gate's verdict, would depend on the
processor.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from resfit.data.images import ImageSet

CALIBRATION = 256  # training images that the ranges of activations are taken from
BATCH = 32  # of them at a time


def quantize(model: onnx.ModelProto, images: np.ndarray) -> onnx.ModelProto:
    """Return the int8 form of a float32 model; `images` (n, 3, S, S) uint8 give the ranges of its activations.

    Convolutions, linear layers and what lies between them are quantised; normalisation, the first convolution and the logits
    stay float32.
    """
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file, level = Path(scratch) / "int8.onnx", logging.root.level
        own = onnx.ModelProto()
        own.CopyFrom(model)  # quantize_static moves the weights of what it is given into files
        logging.root.setLevel(logging.ERROR)  # it would advise what has been done already
        try:
            quantize_static(
                own,
                file,
                _Batches(images),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_first(model),
                # logits in 256 steps would tie
                extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
            )
        finally:
            logging.root.setLevel(level)
        return onnx.load(file)


def calibration_images(train: ImageSet) -> np.ndarray:
    """Return CALIBRATION training images (n, 3, S, S) uint8, those with the smallest keys.

    A key is a hash of the image's bytes: the choice is random and yet the same in any order and under any file names.
    """
    return np.array(train.images[np.sort(np.argsort(train.keys, kind="stable")[:CALIBRATION])])


def _first(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes up to the first convolution, which is a hundredth of the work.

    A whitening convolution magnifies its input's rounding up to 45 times.
    """
    kinds = [node.op_type for node in model.graph.node]
    return [node.name for node in model.graph.node[: kinds.index("Conv") + 1]]


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Hands the images out a batch at a time, as ONNX Runtime asks for them."""

    def __init__(self, images: np.ndarray) -> None:
        self.parts: Iterator[np.ndarray] = iter(
            [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch as the model's input, None after the last."""
        part = next(self.parts, None)
        return None if part is None else {"images": part}
