"""Answers to images as they are read: chunk after chunk is decoded and answered, and no more than a few are held. No torch."""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from resfit.data.images import PixelRule
from resfit.data.keys import read_file
from resfit.data.listing import Blob, Listing, to_rule

CPU_PIXELS = 2**16  # of a chunk: 64 images of 32 pixels

T = TypeVar("T")
Row = tuple[int, Blob, Listing, int]  # where the answer goes, the image, and who brings it under which number
Pixels = dict[PixelRule, np.ndarray]  # a chunk's images, uint8 (n, 3, size, size), by each rule


def cpu_plan(count: int, side: int, threads: int) -> tuple[int, int]:
    """Return how many images of `count` a thread answers at once, and with how many threads of its own where few chunks are."""
    size = min(max(1, CPU_PIXELS // side**2), -(-count // threads))
    return size, max(1, threads // -(-count // size))


def stream(
    listings: Sequence[Listing],
    rules: Sequence[PixelRule],
    answer: Callable[[Pixels], list[np.ndarray]],
    size: int,
    threads: int,
    begin: Callable[[], None] | None = None,
) -> list[np.ndarray]:
    """Return `answer`'s arrays, (N, K) float32 each, for all images of the listings in order, `size` at a time.

    With `begin`, which each of the threads calls first, they read and answer; without it they read, and the caller's answers.
    Raises DataError for the first image that cannot be read.
    """
    rows = _rows(listings)
    chunks = iter(lambda: tuple(itertools.islice(rows, size)), ())
    unique = list(dict.fromkeys(rules))

    def whole(read: tuple[list[int], Pixels]) -> tuple[list[int], list[np.ndarray]]:
        return read[0], answer(read[1])

    if begin is not None:
        answers = in_order(lambda chunk: whole(_read(chunk, unique)), chunks, threads, begin)
    else:
        answers = map(whole, in_order(lambda chunk: _read(chunk, unique), chunks, threads, lambda: None))
    count, logits = sum(listing.count for listing in listings), list[np.ndarray]()
    for places, parts in answers:
        logits = logits or [np.empty((count, part.shape[1]), np.float32) for part in parts]
        for all_of_it, part in zip(logits, parts, strict=True):
            all_of_it[places] = part
    return logits


def _rows(listings: Sequence[Listing]) -> Iterator[Row]:
    first = 0
    for listing in listings:
        for i, blob in listing.blobs(range(listing.count)):
            yield first + i, blob, listing, i
        first += listing.count


def _read(chunk: Sequence[Row], rules: Sequence[PixelRule]) -> tuple[list[int], Pixels]:
    """Return where a chunk's answers go, and its pixels, uint8 (n, 3, size, size), by each rule."""
    pixels = {rule: np.empty((len(chunk), 3, rule.size, rule.size), np.uint8) for rule in rules}
    for place, (_, blob, listing, i) in enumerate(chunk):
        data = read_file(blob) if isinstance(blob, str) else blob
        for rule, images in pixels.items():
            images[place] = to_rule(data, rule, listing, i)
    return [row for row, *_ in chunk], pixels


def in_order(
    work: Callable[[tuple[Row, ...]], T], chunks: Iterator[tuple[Row, ...]], threads: int, begin: Callable[[], None]
) -> Iterator[T]:
    """Yield `work(chunk)` of each chunk in order, done in threads and only a little ahead of what is taken."""
    waiting = deque[Future[T]]()
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
