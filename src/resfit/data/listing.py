"""What a reader hands over: a `Source` and its splits as `Listing`s not yet decoded; and the loop that decodes them."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from resfit.data.decode import decode, fit
from resfit.data.images import ImageSet, PixelRule
from resfit.data.keys import key_of, read_file
from resfit.data.workers import decode_files
from resfit.errors import DataError
from resfit.machine import default_threads

# An encoded image, the path of one, or raw pixels: uint8 (H, W), (H, W, 1) or (H, W, 3), contiguous.
Blob = bytes | str | np.ndarray
Allocate = Callable[[tuple[int, ...]], np.ndarray]
Look = Callable[[int, bytes | np.ndarray, np.ndarray], None]

_WORTH = 4_000  # small files from which on starting a second interpreter (0.2 s) pays
_SMALL = 2**14  # bytes; larger images spend their time in decoders, which threads run side by side
_CHUNK = 128  # images a task: enough that handing it over costs nothing beside 128 small decodes


@dataclass(frozen=True)
class Listing:
    """The images of one native split, in a fixed order, none of them decoded yet.

    labels: int64 (N,), or None. ids: one an image, or None for an array. blobs(index) yields (i, blob) for every
    i of `index` (sorted), in any order. place: what goes before an id in an error message.
    """

    count: int
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    ids: tuple[str, ...] | None
    blobs: Callable[[Sequence[int]], Iterator[tuple[int, Blob]]]
    place: str = ""

    def __post_init__(self) -> None:
        for name in self.class_names:
            if any("\ud800" <= character <= "\udfff" for character in name):  # it goes into files that are UTF-8
                raise DataError(f"{self.place.rstrip(':/')}: class {name}: its name is no UTF-8. Rename it.")

    def name(self, i: int) -> str:
        """Return what image `i` is called in an error message."""
        return f"{self.place}{self.ids[i]}" if self.ids is not None else f"{self.place}: image {i}"


@dataclass(frozen=True)
class Source:
    """A data set that a reader recognised and has not read yet.

    splits: those of train, val and test that it brings, or ("all",) for one pool. signature: text that changes when the
    files do, for the cache; None where reading again is as fast. list_split(split) may raise DataError. layout: what was
    found, in words for people, or nothing.
    """

    name: str
    splits: tuple[str, ...]
    list_split: Callable[[str], Listing]
    signature: str | None = None
    layout: str = ""


def read(listing: Listing, index: Sequence[int], rule: PixelRule, allocate: Allocate, source: str) -> ImageSet:
    """Decode the images at `index` (sorted) of a listing in parallel, into an array got from `allocate`.

    Many small files that go into a memory-mapped array are decoded in processes, all else in threads.
    """
    images = allocate((len(index), 3, rule.size, rule.size))
    keys = np.empty(len(index), np.uint64)
    files = (
        _files(listing, index)
        if isinstance(images, np.memmap) and len(index) >= _WORTH and default_threads() > 1
        else None
    )
    if files is not None and isinstance(images, np.memmap):
        decode_files(files, rule, images, keys, min(8, default_threads()))
    else:
        _work_through(listing, index, keys, images, rule)
    rows = np.asarray(index, np.int64)
    return ImageSet(
        images=images,
        labels=None if listing.labels is None else listing.labels[rows],
        class_names=listing.class_names,
        keys=keys,
        source=source,
        ids=None if listing.ids is None else tuple(listing.ids[i] for i in index),
    )


def to_rule(data: bytes | np.ndarray, rule: PixelRule, listing: Listing, i: int) -> np.ndarray:
    """Return image `i` of a listing, encoded or as raw pixels, as uint8 (3, size, size); raises DataError naming it."""
    return fit(data, rule) if isinstance(data, np.ndarray) else decode(data, rule, listing.name(i))


def read_keys(listing: Listing) -> np.ndarray:
    """Return the keys, uint64 (N,), of all images of a listing: their bytes are hashed, none is decoded."""
    keys = np.empty(listing.count, np.uint64)
    _work_through(listing, range(listing.count), keys, None, None)
    return keys


def read_each(listing: Listing, rule: PixelRule, look: Look) -> tuple[np.ndarray, dict[int, str]]:
    """Return the keys, uint64 (N,), and what is wrong with each image that cannot be read or decoded.

    `look` is called with each of the others, in threads: its number, its bytes or raw pixels, its pixels by the rule.
    """
    keys, failures = np.zeros(listing.count, np.uint64), dict[int, str]()
    _work_through(listing, range(listing.count), keys, None, rule, failures, look)
    return keys, failures


def _files(listing: Listing, index: Sequence[int]) -> list[str] | None:
    """Return the paths at `index`, in its order, or None when the listing is not one of small files."""
    blobs = listing.blobs(index)
    first = next(blobs)
    if not isinstance(first[1], str):
        return None
    paths = dict([first, *blobs])
    found = [str(paths[i]) for i in index]
    sample = found[:: max(1, len(found) // 50)]
    return found if sum(os.path.getsize(path) for path in sample) <= _SMALL * len(sample) else None


def _work_through(
    listing: Listing,
    index: Sequence[int],
    keys: np.ndarray,
    images: np.ndarray | None,
    rule: PixelRule | None,
    failures: dict[int, str] | None = None,
    look: Look | None = None,
) -> None:
    """Fill keys, and with a rule decode, and look; what fails is noted in `failures` where given, else raised as DataError."""
    rows = {i: row for row, i in enumerate(index)}

    def one(i: int, blob: Blob) -> None:
        data = read_file(blob) if isinstance(blob, str) else blob
        keys[rows[i]] = key_of(data if isinstance(data, bytes) else data.data)
        if rule is not None:
            pixels = to_rule(data, rule, listing, i)
            if images is not None:
                images[rows[i]] = pixels
            if look is not None:
                look(i, data, pixels)

    def work(chunk: list[tuple[int, Blob]]) -> None:
        for i, blob in chunk:
            try:
                one(i, blob)
            except DataError as error:
                if failures is None:
                    raise
                failures[i] = str(error)

    blobs = listing.blobs(index)
    threads = min(16, default_threads())
    waiting: deque[Future[None]] = deque()
    done = 0
    with ThreadPoolExecutor(threads) as pool:
        try:
            while chunk := list(islice(blobs, _CHUNK)):
                done += len(chunk)
                waiting.append(pool.submit(work, chunk))
                if len(waiting) > 2 * threads:  # an archive is read only as far ahead as needed
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if done != len(index):
        raise DataError(f"{listing.place.rstrip('/')}: changed while it was read. Read it again once it is complete.")
