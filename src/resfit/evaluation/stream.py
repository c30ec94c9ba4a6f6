"""Logits by torch of images as they are read.

On a CPU each thread decodes a chunk and does the whole network's work for it, with one thread of torch's: decoding and
arithmetic overlap, no operation waits for another core, and a chunk's activations stay in the cache. Elsewhere the threads
decode, and the device takes large batches.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from resfit.data.listing import Listing
from resfit.evaluation.bundle import Bundle
from resfit.evaluation.chunks import Pixels, cpu_plan, stream
from resfit.evaluation.folding import fold
from resfit.evaluation.predict import images_at_once, predict_logits
from resfit.machine import default_threads, tune

WORTH_FOLDING = 200  # images from which on folding (0.1 s) pays


def stream_logits(listings: Sequence[Listing], bundles: Sequence[Bundle]) -> list[np.ndarray]:
    """Return each bundle's logits (N, K) float32 for all images of the listings, in order; all bundles are on one device.

    On a CPU the process keeps torch's thread count and the allocator as `tune` sets them. Raises DataError for the first
    image that cannot be read.
    """
    count, threads = sum(listing.count for listing in listings), default_threads()
    on_cpu = next(bundles[0].model.parameters()).device.type == "cpu"
    if on_cpu:
        tune(threads)
    rules = [bundle.rule for bundle in bundles]
    side = max(rule.size for rule in rules)
    networks = [_network(bundle, on_cpu and count >= WORTH_FOLDING) for bundle in bundles]

    def answer(pixels: Pixels) -> list[np.ndarray]:
        return [
            predict_logits(network, pixels[bundle.rule], bundle.mean, bundle.std, bundle.tta, bundle.tta_below)
            for bundle, network in zip(bundles, networks, strict=True)
        ]

    if not on_cpu:
        return stream(listings, rules, answer, images_at_once(side), threads)
    size, torch_threads = cpu_plan(count, side, threads)

    def begin() -> None:
        torch.set_num_threads(torch_threads)
        torch.set_flush_denormal(True)  # holds for one thread only

    before = torch.get_num_threads()
    try:
        return stream(listings, rules, answer, size, threads, begin)
    finally:
        torch.set_num_threads(before)  # the last one set holds for threads that begin later


def _network(bundle: Bundle, folded: bool) -> nn.Module:
    size = bundle.rule.size
    return fold(bundle.model, (bundle.spec.channels, size, size)) if folded else bundle.model
