"""Batches for the training loop: images whole on the device where they fit, else read ahead from the memory-mapped cache.

Both ways give the same batches, so that a run's bytes do not depend on the memory that was free.
"""

import math
import os
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from resfit.budget import parse_size
from resfit.data.rows import Images, Rows, release
from resfit.errors import UsageError
from resfit.machine import free_memory

AHEAD = 4  # batches that are ready or being read while a step runs
PIECE = 2**22  # bytes read at once where order does not matter: no second copy of a large set


def memory_limit(device: torch.device) -> int:
    """Return how many bytes of images may stay in the device's memory: $RESFIT_MEMORY, else half of what is free there."""
    given = os.environ.get("RESFIT_MEMORY")
    if given is not None:
        try:
            return parse_size(given)
        except UsageError as error:
            raise UsageError(f"RESFIT_MEMORY: {error}") from None
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return free_memory() // (2 * int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun's processes share it


def place_images(sets: Sequence[Images], device: torch.device) -> list[Tensor | Images]:
    """Return each set's images, uint8 (N, 3, H, W), as a tensor on the device while they fit, else as they are.

    One line on stderr says what is streamed. Raises UsageError for a $RESFIT_MEMORY that is no size.
    """
    left = memory_limit(device)
    placed: list[Tensor | Images] = []
    for images in sets:
        size = math.prod(images.shape)
        if size > left:
            print(
                f"resfit: {len(images):,} images take {size / 1e9:.2f} GB and {left / 1e9:.2f} GB may be taken on "
                f"{device.type}: read from the cache as they are needed (RESFIT_MEMORY sets the limit)",
                file=sys.stderr,
            )
            placed.append(images)
            continue
        left -= size
        whole = torch.empty(images.shape, dtype=torch.uint8, device=device)
        for start, piece in pieces(images):
            whole[start : start + len(piece)] = torch.from_numpy(piece)
        placed.append(whole)
    return placed


def pieces(images: Images) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, copy of the rows) from beginning to end, a few megabytes at a time."""
    count = max(1, PIECE // math.prod(images.shape[1:]))
    for start in range(0, len(images), count):
        piece = images[start : start + count]
        yield start, piece if isinstance(images, Rows) else np.array(piece)
        release(images)


def feed(
    images: Tensor | Images, order: Tensor, batch_size: int | list[int], first: int, last: int, device: torch.device
) -> Generator[tuple[Tensor, Tensor]]:
    """Yield (index (n,), images (n, 3, H, W)) on the device for batches `first` to `last` of `order`, int64 (N,) on the CPU.

    `batch_size` may list each batch's own.

    Close it (contextlib.closing) where the loop may leave early: a thread may be reading ahead.
    """
    if isinstance(images, Tensor):
        for index in torch.split(order.to(device), batch_size)[first:last]:
            yield index, images[index]
    else:
        yield from _stream(images, torch.split(order, batch_size)[first:last], device)


def _stream(images: Images, parts: Sequence[Tensor], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    pinned = device.type == "cuda"  # only from pinned memory does a copy to the card not stop this process

    def read(index: Tensor) -> tuple[Tensor, Tensor]:
        places = np.argsort(index.numpy())  # a file is read forwards
        batch = torch.empty((len(index), *images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        batch.numpy()[places] = images[index.numpy()[places]]
        release(images)
        return (index.pin_memory() if pinned else index), batch

    def sent(reading: Future[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        index, batch = reading.result()
        return index.to(device, non_blocking=pinned), batch.to(device, non_blocking=pinned)

    waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
    with ThreadPoolExecutor(1, "resfit-feed") as pool:
        try:
            for index in parts:
                waiting.append(pool.submit(read, index))
                if len(waiting) > AHEAD:
                    yield sent(waiting.popleft())
            while waiting:
                yield sent(waiting.popleft())
        finally:
            for reading in waiting:
                reading.cancel()
