"""Logits of images as they are read: chunk after chunk is decoded and answered, and no more than a few chunks are held.

On a CPU each thread decodes a chunk and does the whole network's work for it, with one thread of torch's: decoding and
arithmetic overlap, no operation waits for another core, and a chunk's activations stay in the cache. Elsewhere the threads
decode, and the device takes large batches.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from resfit.data.images import PixelRule
from resfit.data.keys import read_file
from resfit.data.listing import Blob, Listing, to_rule
from resfit.evaluation.bundle import Bundle
from resfit.evaluation.folding import fold
from resfit.evaluation.predict import images_at_once, predict_logits
from resfit.machine import default_threads, tune

CPU_PIXELS = 2**16  # of a chunk: 64 images of 32 pixels
WORTH_FOLDING = 200  # images from which on folding (0.1 s) pays

T = TypeVar("T")
Row = tuple[int, Blob, Listing, int]  # where the answer goes, the image, and who brings it under which number


def stream_logits(listings: Sequence[Listing], bundles: Sequence[Bundle]) -> list[np.ndarray]:
    """Return each bundle's logits (N, K) float32 for all images of the listings, in order; all bundles are on one device.

    On a CPU the process keeps torch's thread count and the allocator as `tune` sets them. Raises DataError for the first
    image that cannot be read.
    """
    count = sum(listing.count for listing in listings)
    on_cpu = next(bundles[0].model.parameters()).device.type == "cpu"
    threads = default_threads()
    if on_cpu:
        tune(threads)
    networks = [_network(bundle, on_cpu and count >= WORTH_FOLDING) for bundle in bundles]
    rules = list(dict.fromkeys(bundle.rule for bundle in bundles))
    side = max(rule.size for rule in rules)
    most = max(1, CPU_PIXELS // side**2) if on_cpu else images_at_once(side)
    size = min(most, -(-count // threads)) if on_cpu else most

    def answer(read: tuple[list[int], dict[PixelRule, np.ndarray]]) -> tuple[list[int], list[np.ndarray]]:
        places, pixels = read
        parts = [
            predict_logits(network, pixels[bundle.rule], bundle.mean, bundle.std, bundle.tta, bundle.tta_below)
            for bundle, network in zip(bundles, networks, strict=True)
        ]
        return places, parts

    rows = _rows(listings)
    chunks = iter(lambda: tuple(itertools.islice(rows, size)), ())
    if on_cpu:
        at_once = max(1, threads // -(-count // size))  # torch's own threads help where there are too few chunks
        answers = _in_order(lambda chunk: answer(_read(chunk, rules)), chunks, threads, at_once)
    else:
        answers = map(answer, _in_order(lambda chunk: _read(chunk, rules), chunks, threads, threads))
    logits = [np.empty((count, len(bundle.class_names)), np.float32) for bundle in bundles]
    for places, parts in answers:
        for whole, part in zip(logits, parts, strict=True):
            whole[places] = part
    return logits


def _network(bundle: Bundle, folded: bool) -> nn.Module:
    size = bundle.rule.size
    return fold(bundle.model, (bundle.spec.channels, size, size)) if folded else bundle.model


def _rows(listings: Sequence[Listing]) -> Iterator[Row]:
    first = 0
    for listing in listings:
        for i, blob in listing.blobs(range(listing.count)):
            yield first + i, blob, listing, i
        first += listing.count


def _read(chunk: Sequence[Row], rules: Sequence[PixelRule]) -> tuple[list[int], dict[PixelRule, np.ndarray]]:
    """Return where a chunk's answers go, and its pixels, uint8 (n, 3, size, size), by each rule."""
    pixels = {rule: np.empty((len(chunk), 3, rule.size, rule.size), np.uint8) for rule in rules}
    for place, (_, blob, listing, i) in enumerate(chunk):
        data = read_file(blob) if isinstance(blob, str) else blob
        for rule, images in pixels.items():
            images[place] = to_rule(data, rule, listing, i)
    return [row for row, *_ in chunk], pixels


def _in_order(
    work: Callable[[tuple[Row, ...]], T], chunks: Iterator[tuple[Row, ...]], threads: int, torch_threads: int
) -> Iterator[T]:
    """Yield `work(chunk)` of each chunk in order, done in threads and only a little ahead of what is taken."""

    def begin() -> None:
        torch.set_num_threads(torch_threads)
        torch.set_flush_denormal(True)  # holds for one thread only

    before, waiting = torch.get_num_threads(), deque[Future[T]]()
    pool = ThreadPoolExecutor(threads, initializer=begin)
    try:
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # the last one set holds for threads that begin later
