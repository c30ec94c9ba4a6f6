"""Logits by ONNX Runtime of images as they are read, on a CPU: from a bundle's model.onnx, with torch never imported.

A thread decodes a chunk and answers it, as in `stream`; the session is shared, and takes one thread of its own a call. What is
asked here is whether the file may stand for the network at all: only with its own seal whole, and made of these weights.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Sequence

import numpy as np

from resfit.data.listing import Listing
from resfit.errors import UsageError
from resfit.escaping import visible
from resfit.evaluation.chunks import Pixels, cpu_plan, stream
from resfit.evaluation.config import BundleConfig
from resfit.evaluation.runtime import OnnxBundle, is_sealed, load_onnx
from resfit.machine import default_threads, is_surely_cpu
from resfit.models.spec import stored_spec


def onnx_logits(
    listings: Sequence[Listing], configs: Sequence[BundleConfig], device: str = "auto"
) -> list[np.ndarray] | None:
    """Return each bundle's logits (N, K) float32 for all images of the listings, in order; None where torch is to answer.

    That is so off the CPU, without onnxruntime, and where a bundle has no model.onnx, or one that is not its own: then one
    line on stderr says so. Raises DataError for the first image that cannot be read.
    """
    count, threads = sum(listing.count for listing in listings), default_threads()
    rules = [config.rule for config in configs]
    size, own_threads = cpu_plan(count, max(rule.size for rule in rules), threads)
    if not is_surely_cpu(device) or importlib.util.find_spec("onnxruntime") is None:
        return None
    if not all((config.folder / "model.onnx").is_file() for config in configs):
        return None
    networks: list[OnnxBundle] = []
    for config in configs:
        try:
            networks.append(_load(config, own_threads))
        except (UsageError, OSError) as error:
            print(f"resfit: {visible(str(error))} PyTorch answers instead.", file=sys.stderr)
            return None

    def answer(pixels: Pixels) -> list[np.ndarray]:
        return [network.logits(pixels[network.rule]) for network in networks]

    return stream(listings, rules, answer, size, threads, lambda: None)


def _load(config: BundleConfig, threads: int) -> OnnxBundle:
    """Return the network in a bundle's model.onnx; raises UsageError where it is damaged, or not of this bundle."""
    file = config.folder / "model.onnx"
    data = file.read_bytes()
    if is_sealed(data) is not True:
        raise UsageError(f"{file}: is damaged, or of an earlier version. Export it anew.")
    network = load_onnx(data, threads)
    weights = hashlib.sha256((config.folder / "model.safetensors").read_bytes()).hexdigest()
    said, pre = network.config, network.config["preprocessing"]
    theirs = (
        said["weights_sha256"],
        stored_spec(said["spec"]),
        network.class_names,
        network.rule,
        pre["mean"],
        pre["std"],
    )
    ours = (weights, config.spec, config.class_names, config.rule, list(config.mean), list(config.std))
    views = (network.tta, network.tta_below) == (config.tta, config.tta_below)
    if theirs != ours or not views or said["precision"] != "float32":
        raise UsageError(f"{file}: is not of this bundle's weights and settings. Export it anew.")
    return network
