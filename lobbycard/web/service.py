"""A predictor behind doors that many knock on at once: decoding, batching, limits, answers.

Page and API both ask this one; it knows neither of them. Nothing that comes in is written anywhere or kept.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lobbycard.catalog.image import LARGE, MAX_PIXELS, ImageError, Source, load_poster, poster_pixels
from lobbycard.poster.answers import Choice
from lobbycard.poster.familiar import statistics
from lobbycard.poster.predictor import PosterPredictor
from lobbycard.scoring.decide import shift_thresholds
from lobbycard.web.batcher import Batcher


@dataclass(frozen=True)
class Limits:
    """What one process takes before it says no.

    `pixels` is width x height, checked on the header before anything is decoded; `waiting` counts items between the door and
    the network, and whoever comes after that is told to come again; `batch` is the most that the network sees at once.
    A request's body may have `body_bytes`, may take `body_seconds` to come, and may pause for `stall_seconds`; the bodies
    of all requests that are here at once, most of them on disk, may have `spool_bytes`.
    """

    file_bytes: int = 20_000_000
    body_bytes: int = 64_000_000
    spool_bytes: int = 512_000_000
    body_seconds: float = 300
    stall_seconds: float = 20
    files: int = 32
    pixels: int = MAX_PIXELS
    waiting: int = 256
    batch: int = 8
    decoders: int = 2


@dataclass(frozen=True)
class Reading:
    """What the network saw in one item; decisions are made from it, as often as somebody moves a slider.

    `probabilities` (L,) float32 and `pixels` (H, W, 3) uint8 as the network saw them, or both None and an `error` with its
    `status` (`not_image`, `truncated`, `too_large`, `unreadable`); `unlike` says why the picture looks unlike what the model
    was trained on, or is empty; `milliseconds` from asking to knowing, waiting included. `shown` is the picture upright and
    small, for a page to show, where it was asked for.
    """

    name: str
    probabilities: np.ndarray | None = None
    pixels: np.ndarray | None = None
    tta: bool = False
    unlike: str = ""
    error: str = ""
    status: str = ""
    milliseconds: float = 0.0
    shown: Image.Image | None = None


@dataclass(frozen=True)
class Answer:
    """A decision about one reading.

    `labels` are those given, most probable first; `guess` is true where none reached its threshold and the best one is
    given all the same. `probabilities` and `thresholds` (those that were applied) have one value for each of the model's
    labels.
    """

    labels: list[str]
    guess: bool
    probabilities: dict[str, float]
    thresholds: dict[str, float]
    unlike: str = ""


class Service:
    """Answers for many at once. `labels` are the predictor's L labels; `item_noun` is what a picture is called to people."""

    item_noun = "picture"

    def __init__(self, predictor: PosterPredictor, limits: Limits | None = None):
        self.predictor = predictor
        self.limits = limits or Limits()
        self.labels: list[str] = predictor.labels
        self._batcher = Batcher(predictor.from_pixels, self.limits.batch, self.limits.waiting)
        self._decoders = ThreadPoolExecutor(self.limits.decoders, thread_name_prefix="decode")
        # Large pictures have a thread to themselves: one at a time, and small ones go past them.
        self._large = ThreadPoolExecutor(1, thread_name_prefix="decode-large")
        self._ready = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether the network has answered once."""
        return self._ready.is_set()

    def warm_up(self) -> None:
        """Let the network answer once, so that the first visitor does not pay for it."""
        height, width = self.predictor.size
        self._batcher.submit(np.zeros((height, width, 3), np.uint8), False).result()
        self._ready.set()

    def close(self) -> None:
        """Finish what was accepted, then stop the threads."""
        self._decoders.shutdown(wait=True)
        self._large.shutdown(wait=True)
        self._batcher.close()

    def read(
        self, sources: Sequence[Source], tta: bool = False, names: Sequence[str] = (), show: int = 0
    ) -> list[Reading]:
        """As `submit`, waiting for all of it. Safe from any thread."""
        return [reading.result() for reading in self.submit(sources, tta, names, show)]

    def from_pixels(self, pixels: np.ndarray, tta: bool = False) -> np.ndarray:
        """`PosterPredictor.from_pixels`, (B, H, W, 3) to (B, L), taking its turn among those who wait.

        Raises:
            Busy: more is waiting than `limits.waiting`.
        """
        self._batcher.reserve(len(pixels))
        try:
            rows = [self._batcher.submit(picture, tta) for picture in pixels]
            return np.stack([row.result() for row in rows])
        finally:
            self._batcher.release(len(pixels))

    def submit(
        self, sources: Sequence[Source], tta: bool = False, names: Sequence[str] = (), show: int = 0
    ) -> "list[Future[Reading]]":
        """One future a source, in order; a bad picture is a reading with its `error`, never an exception.

        Args:
            sources: paths, bytes, binary files or Pillow images; they are read before the future is done.
            tta: average over three views, at three times the cost.
            names: what to call the sources in errors, one each; by default the paths' last parts.
            show: also keep each picture, at most this many pixels high and wide, for a page to show.

        Raises:
            Busy: more is waiting than `limits.waiting`; nothing of this call was taken.
        """
        names = list(names) or [Path(s).name if isinstance(s, str | Path) else "picture" for s in sources]
        self._batcher.reserve(len(sources))
        return [self._submit(source, name, tta, show) for source, name in zip(sources, names, strict=True)]

    def _submit(self, source: Source, name: str, tta: bool, show: int) -> "Future[Reading]":
        asked, told = time.perf_counter(), Future()

        def tell(found: Callable[[], dict[str, Any]]) -> None:
            """Once an item, however it ends: give its place back, and its reading to whoever still waits for it."""
            self._batcher.release()
            if told.set_running_or_notify_cancel():
                try:
                    spent = 1000 * (time.perf_counter() - asked)
                    told.set_result(Reading(name, tta=tta, milliseconds=spent, **found()))
                except BaseException as error:
                    told.set_exception(error)

        def decode(most_pixels: int) -> None:
            try:
                if told.cancelled():
                    raise CancelledError
                try:
                    seen = self._seen(load_poster(source, most_pixels), show)
                except ImageError as error:
                    if error.status != "too_large" or most_pixels == self.limits.pixels:
                        raise
                    self._large.submit(decode, self.limits.pixels)
                    return
                network = self._batcher.submit(seen["pixels"], tta)
            except BaseException as error:
                tell(partial(_failed, error, name))
                return
            told.add_done_callback(lambda _: told.cancelled() and network.cancel())
            network.add_done_callback(lambda done: tell(lambda: self._known(done.result(), **seen)))

        self._decoders.submit(decode, min(LARGE, self.limits.pixels))
        return told

    def _seen(self, picture: Image.Image, show: int) -> dict[str, Any]:
        """All that is wanted of a picture, which is then given up: for the network, for judging it, and for a page."""
        pixels = poster_pixels(picture, self.predictor.size)
        return {
            "pixels": pixels,
            "shape": picture.size,
            "numbers": statistics(pixels),
            "shown": _small(picture, show) if show else None,
        }

    def _known(self, row: np.ndarray, pixels: np.ndarray, shape: tuple[int, int], numbers: np.ndarray, shown) -> dict:
        unlike = self.predictor.familiarity.unlike(shape, pixels, row, self.item_noun, numbers)
        return {"probabilities": row, "pixels": pixels, "unlike": unlike, "shown": shown}

    def answer(self, reading: Reading, choice: Choice) -> Answer:
        """Decide about a reading that has probabilities.

        Raises:
            InputError: a threshold, shift or top-k that means nothing.
        """
        own = self.predictor.thresholds
        given = choice(reading.probabilities[None], own)[0]
        base = own if choice.threshold is None else np.full(len(self.labels), float(choice.threshold))
        applied = shift_thresholds(base, choice.shift)
        order = np.argsort(-reading.probabilities, kind="stable")
        return Answer(
            labels=[self.labels[i] for i in order if given[i]],
            guess=not (reading.probabilities >= applied).any(),
            probabilities={label: float(p) for label, p in zip(self.labels, reading.probabilities, strict=True)},
            thresholds={label: float(t) for label, t in zip(self.labels, applied, strict=True)},
            unlike=reading.unlike,
        )

    def described(self, reading: Reading, choice: Choice, plural: str) -> dict[str, Any]:
        """`answer` as plain values, which page and API both give to programs; the labels given stand under `plural`.

        Raises:
            InputError: as `answer`.
        """
        answer = self.answer(reading, choice)
        sure = {label: round(p, 6) for label, p in answer.probabilities.items()}
        return {
            "file": reading.name,
            plural: [
                {"name": label, "probability": sure[label], "threshold": round(answer.thresholds[label], 6)}
                for label in answer.labels
            ],
            "guess": answer.guess,
            "unlike": answer.unlike or None,
            "probabilities": sure,
        }


def _small(picture: Image.Image, side: int) -> Image.Image:
    """A copy, at most `side` pixels high and wide, in the picture's own proportions."""
    scale = min(1.0, side / max(picture.size))
    return picture.resize([max(1, round(scale * length)) for length in picture.size], reducing_gap=2.0)


def _failed(error: BaseException, name: str) -> dict[str, str]:
    """What a reading says of a picture that could not be read, by its owner's name for it; raises other errors."""
    if isinstance(error, ImageError):
        text = str(error)
        return {
            "error": text if text.startswith(f"{name}: ") else f"{name}: {text.split(': ', 1)[-1]}",
            "status": error.status,
        }
    if isinstance(error, MemoryError):
        return {"error": f"{name}: too large for this machine's memory; scale it down", "status": "too_large"}
    if isinstance(error, OSError):
        return {"error": f"{name}: cannot be read ({error.strerror or error})", "status": "unreadable"}
    raise error
