"""Batches across requests: what waits while ONNX Runtime is at work is answered together, by the one thread that calls it.

Nothing waits for a batch to fill: under load the queue fills by itself while the batch before is computed, and without load
an image alone is answered at once.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Answer = Callable[[np.ndarray], np.ndarray]  # images uint8 (n, 3, S, S) to probs float32 (n, K)


class Full(Exception):
    """The queue has no room; come back in a second."""


class Batcher:
    """A bounded queue of images before one network."""

    def __init__(
        self,
        answer: Answer,
        most: int,
        room: int,
        note: Callable[[int], None] | None = None,
    ) -> None:
        """Answer at most `most` images at once, a request's together, and hold `room`; `note` is told each batch's size."""
        self.answer, self.most, self.room, self.note = answer, most, room, note
        self.queue: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self.waiting = 0  # images in the queue
        self.filled = asyncio.Event()
        self.worker = ThreadPoolExecutor(1, "resfit-network")

    async def ask(self, images: np.ndarray) -> np.ndarray:
        """Return probs (n, K) of images (n, 3, S, S) uint8; raises Full at once where the queue has no room for them."""
        if self.waiting and self.waiting + len(images) > self.room:
            raise Full
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self.queue.append((images, future))
        self.waiting += len(images)
        self.filled.set()
        return await future

    async def run(self) -> None:
        """Answer what comes until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self.filled.wait()
            batch = self._take()
            if not batch:
                continue
            try:
                images = np.concatenate([images for images, _ in batch])
                probs = await loop.run_in_executor(self.worker, self.answer, images)
            except Exception as error:  # of whatever kind, it is those requests' and not the queue's end
                for _, future in batch:
                    with contextlib.suppress(asyncio.InvalidStateError):
                        future.set_exception(error)
                continue
            if self.note is not None:
                self.note(len(images))
            start = 0
            for some, future in batch:
                if not future.done():  # its request may have run out of time
                    future.set_result(probs[start : start + len(some)])
                start += len(some)

    def _take(self) -> list[tuple[np.ndarray, "asyncio.Future[np.ndarray]"]]:
        """Return the first of the queue up to `most` images, those left out that nobody waits for any more."""
        batch: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        count = 0
        while self.queue and (not batch or count + len(self.queue[0][0]) <= self.most):
            images, future = self.queue.popleft()
            self.waiting -= len(images)
            if not future.done():
                batch.append((images, future))
                count += len(images)
        if not self.queue:
            self.filled.clear()
        return batch
