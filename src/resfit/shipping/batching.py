"""Batches across requests: what waits while ONNX Runtime is at work is answered together, by the one thread that calls it.

Nothing waits for a batch to fill: under load the queue fills by itself while the batch before is computed, and without load
an image alone is answered at once. The thread takes the next batch by itself: the event loop may be busy with the answers
before for longer than a batch takes.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

Answer = Callable[[np.ndarray], np.ndarray]  # images uint8 (n, 3, S, S) to probs float32 (n, K)
Waiting = tuple[np.ndarray, "asyncio.Future[np.ndarray]"]


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
        self.queue: deque[Waiting] = deque()
        self.waiting = 0  # images in the queue
        self.changed = threading.Condition()  # held for what the two threads share: the queue, `waiting`, `ended`
        self.ended = False

    async def ask(self, images: np.ndarray) -> np.ndarray:
        """Return probs (n, K) of images (n, 3, S, S) uint8; raises Full at once where the queue has no room for them."""
        future: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        with self.changed:
            if self.waiting and self.waiting + len(images) > self.room:
                raise Full
            self.queue.append((images, future))
            self.waiting += len(images)
            self.changed.notify()
        return await future

    def start(self) -> None:
        """Answer what comes, in a thread, until `end`; called in the event loop that asks."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._work, args=(loop,), name="resfit-network").start()

    def end(self) -> None:
        """Take no more from the queue."""
        with self.changed:
            self.ended = True
            self.changed.notify()

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self.ended:
            with self.changed:
                self.changed.wait_for(lambda: self.queue or self.ended)
                batch = self._take()
            if not batch:
                continue
            found: np.ndarray | Exception
            try:
                found = self.answer(np.concatenate([images for images, _ in batch]))
            except Exception as error:  # of whatever kind, it is those requests' and not the queue's end
                found = error
            try:
                loop.call_soon_threadsafe(self._give, batch, found)
            except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
                return

    def _take(self) -> list[Waiting]:
        """Return the first of the queue up to `most` images, those left out that nobody waits for any more."""
        batch: list[Waiting] = []
        count = 0
        while self.queue and (not batch or count + len(self.queue[0][0]) <= self.most):
            images, future = self.queue.popleft()
            self.waiting -= len(images)
            if not future.done():
                batch.append((images, future))
                count += len(images)
        return batch

    def _give(self, batch: list[Waiting], found: np.ndarray | Exception) -> None:
        """Hand each request its rows, or all of them the error; in the event loop."""
        if self.note is not None and not isinstance(found, Exception):
            self.note(len(found))
        start = 0
        for images, future in batch:
            if future.done():  # its request may have run out of time
                pass
            elif isinstance(found, Exception):
                future.set_exception(found)
            else:
                future.set_result(found[start : start + len(images)])
            start += len(images)
