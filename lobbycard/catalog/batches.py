"""Pictures as batches of pixels, decoded ahead in threads, one bad file never stopping the rest."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Lock, Semaphore
from typing import TypeVar

import numpy as np

from lobbycard.catalog.image import ImageError, Source, poster_pixels, use_poster

# Pillow decodes outside the interpreter's lock. As many threads as cores would take them from the network (docs/log.md);
# four feed any network on a CPU, a cluster's workers share a machine, and four pictures below `LARGE` take 0.4 GB.
MOST = 4
THREADS = max(1, min(MOST, (os.cpu_count() or 1) // 2))

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Some pictures in the order they were given."""

    sources: list[Source]  # B
    pixels: np.ndarray  # (B', H, W, 3) uint8 of those that could be read, B' <= B
    rows: np.ndarray  # (B',) which of `sources` they are
    errors: dict[int, str]  # index into `sources` -> why it could not be read


def batches(sources: Iterable[Source], size: tuple[int, int], batch_size: int) -> Iterator[Batch]:
    """Decode pictures to `size` (height, width), `batch_size` at a time, the next batch while this one is used.

    `sources` may be endless: no more than three batches of it are held.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        source, alone = iter(sources), Lock()
        ahead: list[tuple[list[Source], list]] = []
        while True:
            while len(ahead) < 2 and (chunk := list(islice(source, batch_size))):
                ahead.append((chunk, [pool.submit(_read, item, size, alone) for item in chunk]))
            if not ahead:
                return
            chunk, futures = ahead.pop(0)
            yield _batch(chunk, [future.result() for future in futures], size)


def answered(
    sources: Iterable[Source],
    size: tuple[int, int],
    batch_size: int,
    answer: Callable[[Batch], T],
    threads: int = 1,
) -> Iterator[T]:
    """What `answer` gives for each batch of pictures, in order.

    With several `threads`, each decodes a batch and answers it: for an `answer` that takes one core and may be called from
    all of them at once. With one, the next batches are decoded beside it, as by `batches`.

    `sources` may be endless: no more than two batches a thread are held besides the one that is given.
    """
    if threads == 1:
        yield from map(answer, batches(sources, size, batch_size))
        return
    source, alone, decoding = iter(sources), Lock(), Semaphore(MOST)

    def work(chunk: list[Source]) -> T:
        results = []
        for item in chunk:
            with decoding:
                results.append(_read(item, size, alone))
        return answer(_batch(chunk, results, size))

    pool = ThreadPoolExecutor(threads)
    try:
        ahead: deque[Future[T]] = deque()
        while True:
            while len(ahead) < 2 * threads and (chunk := list(islice(source, batch_size))):
                ahead.append(pool.submit(work, chunk))
            if not ahead:
                return
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)  # who stops early does not wait for what was to come


def normalize(pixels: np.ndarray, mean: Iterable[float], std: Iterable[float]) -> np.ndarray:
    """What the network takes, (B, 3, H, W) fp32, from (B, H, W, 3) uint8: scaled to [0, 1], less `mean`, over `std`."""
    scale = (1.0 / (255.0 * np.asarray(list(std), np.float64))).astype(np.float32)
    shift = (np.asarray(list(mean), np.float64) / np.asarray(list(std), np.float64)).astype(np.float32)
    out = np.empty((len(pixels), 3, *pixels.shape[1:3]), np.float32)
    for channel in range(3):  # plane by plane, into place: an eighth of the time of scaling and then transposing
        np.multiply(pixels[..., channel], scale[channel], out=out[:, channel])
        out[:, channel] -= shift[channel]
    return out


def _batch(sources: list[Source], results: list[np.ndarray | str], size: tuple[int, int]) -> Batch:
    rows = [i for i, result in enumerate(results) if not isinstance(result, str)]
    pixels = np.stack([results[i] for i in rows]) if rows else np.empty((0, *size, 3), np.uint8)
    errors = {i: result for i, result in enumerate(results) if isinstance(result, str)}
    return Batch(sources, pixels, np.array(rows, dtype=int), errors)


def _read(source: Source, size: tuple[int, int], alone: Lock) -> np.ndarray | str:
    try:
        return use_poster(source, lambda picture: poster_pixels(picture, size), alone)
    except (ImageError, OSError) as error:
        return str(error) if isinstance(error, ImageError) else f"cannot be read: {error.strerror or error}"
