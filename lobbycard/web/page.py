"""What happens on the page: one function an event, values in, HTML out. The layout, and the words, are the front door's."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from lobbycard.errors import InputError
from lobbycard.poster.answers import Choice
from lobbycard.web.bars import answer_html, problem_html
from lobbycard.web.batcher import Busy
from lobbycard.web.gallery import THUMBNAIL, Row, gallery_html, progress_html, thumbnail
from lobbycard.web.service import Reading, Service
from lobbycard.web.stage import SHOWN, maps_html, picture_html, working_html
from lobbycard.web.words import Words, engine, spent

CHUNK = 8  # pictures of one visitor that wait together, so that others come in between
MAPS = 8  # pictures that wait for their maps at once; whoever comes then is told so, and nobody waits behind maps for an answer
PATIENCE = 60  # seconds that a visitor with many pictures waits for room, before the rest are rows with an error
NO_MAP = "No map of where it looked this time: too many are waiting. The answer stands."

Maps = Callable[[Callable[[np.ndarray], np.ndarray], np.ndarray], np.ndarray]
Overlay = Callable[[Image.Image, np.ndarray], Image.Image]


@dataclass
class Visit:
    """What a visitor sees at the moment; sliders decide about it anew without another look at the picture."""

    reading: Reading | None = None


class Page:
    """The events of one page over one service."""

    def __init__(self, service: Service, words: Words, explain: tuple[Maps, Overlay, Callable[[np.ndarray], str]]):
        """`explain` gives the maps of a picture, draws one, and says what is to be said of one (or "")."""
        self.service, self.words = service, words
        self._maps, self._overlay, self._says = explain
        self._mapping: list[np.ndarray] = []  # pictures whose maps are made, or wait for it
        self._door, self._one_at_a_time = threading.Lock(), threading.Lock()

    def read(self, visit: Visit, source: Any, name: str, choice: Choice, tta: bool) -> tuple[str, str, str]:
        """HTML of the picture, of the maps (which come later), and of the answer; `visit` remembers it."""
        visit.reading = None
        try:
            [reading] = self.service.read([source], tta, [name], SHOWN)
        except Busy as error:
            return "", "", problem_html(str(error), "Full house")
        if reading.error:
            return "", "", problem_html(reading.error, begins_with=name)
        visit.reading = reading
        said = working_html("Finding out where it looked\N{HORIZONTAL ELLIPSIS}")
        return picture_html(reading.shown, name, self.words), said, self.decide(visit, choice)

    def decide(self, visit: Visit, choice: Choice) -> str:
        """The answer's HTML for what was read before."""
        reading = visit.reading
        if reading is None:
            return problem_html(
                f"choose the {self.words.item} once more: it is forgotten after a while", "Nothing here"
            )
        try:
            answer = self.service.answer(reading, choice)
        except InputError as error:
            return problem_html(str(error))
        views = ", three views" if reading.tta else ""
        return answer_html(
            answer, self.words, f"{spent(reading.milliseconds)}, {engine(self.service.predictor)}{views}"
        )

    def look_again(self, visit: Visit, choice: Choice, tta: bool) -> str:
        """The answer after averaging over views, or not; the picture is remembered as the network saw it."""
        reading = visit.reading
        if reading is not None and reading.tta != tta:
            began = time.perf_counter()
            try:
                row = self.service.from_pixels(reading.pixels[None], tta)[0]
            except Busy as error:
                return problem_html(str(error), "Full house")
            taken = 1000 * (time.perf_counter() - began)
            if visit.reading is reading:  # else another picture came meanwhile
                visit.reading = replace(reading, probabilities=row, tta=tta, milliseconds=taken)
        return self.decide(visit, choice)

    def maps(self, visit: Visit) -> str | None:
        """HTML of the maps over the picture; None where the visitor has gone on to another one, or asked twice.

        One picture's at a time over all visitors: they cost some forty looks, in small batches that answers come between.
        """
        reading = visit.reading
        if reading is None or reading.shown is None:
            return None
        with self._door:
            if any(pixels is reading.pixels for pixels in self._mapping):
                return None
            if len(self._mapping) >= MAPS:
                return working_html(NO_MAP)
            self._mapping.append(reading.pixels)
        try:
            with self._one_at_a_time:
                return self._mapped(visit, reading)
        except Busy:
            return working_html(NO_MAP)
        finally:
            with self._door:
                self._mapping = [pixels for pixels in self._mapping if pixels is not reading.pixels]

    def _mapped(self, visit: Visit, reading: Reading) -> str | None:
        if visit.reading is None or visit.reading.pixels is not reading.pixels:
            return None
        found = self._maps(self.service.from_pixels, reading.pixels)
        # What the model gives by its own thresholds comes first: that is what a visitor asks about.
        given = reading.probabilities >= self.service.predictor.thresholds
        order = np.lexsort((-reading.probabilities, ~given))
        layers = [(self.service.labels[i], self._overlay(reading.shown, found[i]), self._says(found[i])) for i in order]
        html = maps_html(layers, self.words, reading.shown.size)
        if visit.reading is None or visit.reading.pixels is not reading.pixels:
            return None
        visit.reading = replace(visit.reading, shown=None)  # the browser has it now
        return html

    def many(self, uploads: Sequence[Any], choice: Choice, tta: bool) -> Iterator[tuple[str, str | None]]:
        """HTML of the progress, and in the end of everything; one that cannot be read is an entry with its error.

        `uploads` have a `name` and `take()`, their bytes, which raises InputError where there are none.
        """
        began, rows, total = time.perf_counter(), [], len(uploads)
        for start in range(0, total, CHUNK):
            yield progress_html(start, total, self.words), None
            part, lost = [], {}
            for n, upload in enumerate(uploads[start : start + CHUNK]):
                try:
                    part.append((upload.name, upload.take()))
                except InputError as error:
                    lost[n] = Row(upload.name, error=f"{upload.name}: {error}")
            found = iter(
                self._rows([name for name, _ in part], [file for _, file in part], choice, tta) if part else ()
            )
            rows += [lost.get(n) or next(found) for n in range(len(part) + len(lost))]
        note = f"{spent(1000 * (time.perf_counter() - began))}, {engine(self.service.predictor)}"
        yield "", gallery_html(rows, self.service.labels, self.words, note) if rows else ""

    def _rows(self, names: list[str], files: list[bytes], choice: Choice, tta: bool) -> list[Row]:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                readings = self.service.read(files, tta, names, THUMBNAIL)
                break
            except Busy as error:
                if time.monotonic() > until:
                    return [Row(name, error=f"{name}: {error}") for name in names]
                time.sleep(error.retry_after / 4)
        return [
            Row(r.name, error=r.error) if r.error else Row(r.name, self.service.answer(r, choice), thumbnail(r.shown))
            for r in readings
        ]

    def result(self, source: bytes, name: str, choice: Choice, tta: bool) -> dict[str, Any]:
        """One answer as plain values, in the shape of the REST API's results.

        Raises:
            InputError: the picture or an argument cannot be used.
        """
        self.service.answer(Reading(name, np.zeros(len(self.service.labels), np.float32)), choice)  # before the work
        [reading] = self.service.read([source], tta, [name])
        if reading.error:
            raise InputError(reading.error)
        predictor = self.service.predictor
        return self.service.described(reading, choice, self.words.labels) | {
            "runtime": predictor.runtime,
            "precision": predictor.precision,
            "milliseconds": round(reading.milliseconds, 1),
        }


def choice_of(top_k: float | None, one_for_all: bool, threshold: float | None, shift: float | None, n: int) -> Choice:
    """What the controls say; a top-k of all `n` labels is none, and one threshold for all stays where it was put."""
    with suppress(TypeError, ValueError):
        top_k = None if top_k is None or int(top_k) >= n else int(top_k)
    return Choice(top_k, threshold if one_for_all else None, 0.0 if one_for_all else shift or 0.0)
