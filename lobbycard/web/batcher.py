"""Requests that come at the same time share one run of the network."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from lobbycard.errors import InputError

RETRY_AFTER = 2  # seconds, told to whoever finds the queue full


class Busy(InputError):
    """More waits than is good for anybody; `retry_after` seconds from now there may be room."""

    retry_after = RETRY_AFTER


class Batcher:
    """One thread that runs the network, on whatever has gathered since it last looked.

    Nobody waits for company: a lone item is run at once. While it runs, the next ones gather, so batches grow with the load.
    One run at a time also keeps the network's threads from fighting each other for the cores.
    """

    def __init__(self, forward: Callable[[np.ndarray, bool], np.ndarray], batch: int, waiting: int):
        """`forward` takes (B, H, W, 3) uint8 and whether to average over views, and gives (B, L)."""
        self._forward, self._batch, self._most = forward, batch, waiting
        self._queue: deque[tuple[np.ndarray, bool, Future]] = deque()
        self._taken = 0  # places given out and not yet given back
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)
        self._thread.start()

    def reserve(self, n: int) -> None:
        """Take `n` places in the queue, or none. Each is given back with `release`.

        Raises:
            Busy: there are not so many.
        """
        with self._changed:
            if not self._open:
                raise Busy("the service is stopping; try again in a moment")
            if self._taken + n > self._most and self._taken:
                raise Busy(
                    f"busy: {self._taken} pictures are waiting and at most {self._most} may; "
                    f"try again in {RETRY_AFTER} seconds"
                )
            self._taken += n

    def release(self, n: int = 1) -> None:
        with self._changed:
            self._taken -= n
            self._changed.notify_all()

    def submit(self, pixels: np.ndarray, views: bool = False) -> "Future[np.ndarray]":
        """The (L,) probabilities of one (H, W, 3) uint8 picture, when the network gets to it."""
        future: Future[np.ndarray] = Future()
        with self._changed:
            if not self._open:
                raise Busy("the service is stopping; try again in a moment")
            self._queue.append((pixels, views, future))
            self._changed.notify_all()
        return future

    def close(self) -> None:
        """Answer what is queued, then stop."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            try:
                found = self._forward(np.stack([pixels for pixels, _, _ in batch]), batch[0][1])
            except Exception as error:  # whatever the runtime raises belongs to those who asked, not to this thread
                for *_, future in batch:
                    future.set_exception(error)
            else:
                for (*_, future), row in zip(batch, found, strict=True):
                    future.set_result(row)

    def _next(self) -> list[tuple[np.ndarray, bool, Future]]:
        """What is run next, all with or all without views; empty when there is nothing and never will be."""
        with self._changed:
            batch: list[tuple[np.ndarray, bool, Future]] = []
            while not batch and (self._queue or self._open):
                while not self._queue and self._open:
                    self._changed.wait()
                while self._queue and len(batch) < self._batch and self._queue[0][1] == (batch or self._queue)[0][1]:
                    entry = self._queue.popleft()
                    if entry[2].set_running_or_notify_cancel():  # whoever has gone away costs the network nothing
                        batch.append(entry)
            return batch
