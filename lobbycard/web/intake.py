"""Multipart bodies from strangers: as much as may come, in the time it may take, and nothing but files.

What is too large is given up on while it comes. A slow sender holds a socket and little memory, and a thread of the
framework's pool only for the moment in which a piece of a file beyond 256 kB is written to disk.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from lobbycard.web.batcher import RETRY_AFTER
from lobbycard.web.service import Limits

FIELDS = ("files", "file")
LONGEST_NAME = 200  # characters of a file's name that are said back
LINGER = 256_000_000  # bytes of a refused body that are read and thrown away, so that its sender hears why


class Refusal(Exception):
    """An answer other than 200; `more` goes into the body beside `detail`."""

    unheard = False  # whether the sender still sends, and so would not hear it

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any):
        super().__init__(detail)
        self.status, self.headers, self.body = status, headers, {"detail": detail, **more}


class _Parser(MultiPartParser):
    spool_max_size = 256 * 1024  # beyond it a file waits in an unnamed temporary file: slow senders hold little memory
    began = ended = False

    def on_part_begin(self) -> None:
        self.began = True
        super().on_part_begin()

    def on_end(self) -> None:
        self.ended = True
        super().on_end()


class Intake:
    """The forms of all requests to one app, together within `limits.spool_bytes`."""

    def __init__(self, limits: Limits):
        self.limits, self._held = limits, 0

    @contextlib.asynccontextmanager
    async def form(self, request: Request) -> AsyncIterator[FormData]:
        """The request's parts, kept until the block ends.

        Nothing is read of a body that says it is too large, nor more of any than may come. Raises Refusal.
        """
        try:
            async with self._kept(request) as form:
                yield form
        except Refusal as error:
            if error.unheard:
                await hear_out(request, self.limits)
            raise

    @contextlib.asynccontextmanager
    async def room(self) -> AsyncIterator[Callable[[int], None]]:
        """A function that takes so many bytes of the room for all requests; the block's end gives them back.

        Raises:
            Refusal: by the function, where they are not to be had.
        """
        mine = 0

        def take(n: int) -> None:
            nonlocal mine
            if self._held + n > self.limits.spool_bytes:
                raise self._busy()
            self._held, mine = self._held + n, mine + n

        try:
            yield take
        finally:
            self._held -= mine

    async def pieces(
        self, request: Request, most: int, take: Callable[[int], None]
    ) -> AsyncIterator[tuple[bytes, bool]]:
        """The body as it comes, at most `most` bytes, each piece with whether more follow; `take` is one of a `room`.

        Raises:
            Refusal: too much, or too slow; nothing is read of a body that says it is too large.
            ClientDisconnect: its sender went away.
        """
        limits, announced = self.limits, request.headers.get("content-length", "")
        length = int(announced) if announced.isdecimal() else 0
        if length > most or self._held + length > limits.spool_bytes:
            error = self._too_large(most) if length > most else self._busy()
            error.unheard = "expect" not in request.headers and length <= LINGER
            raise error
        try:
            async for piece in _chunks(request, limits, most, take):
                yield piece
        except OverflowError as error:
            refusal = self._too_large(most)
            refusal.unheard = error.args[0]
            raise refusal from error
        except asyncio.TimeoutError as error:
            raise Refusal(
                408,
                f"the request came too slowly: a pause of {limits.stall_seconds:g} s or {limits.body_seconds:g} s in all; "
                "send smaller files",
                {"Connection": "close"},
            ) from error

    @contextlib.asynccontextmanager
    async def _kept(self, request: Request) -> AsyncIterator[FormData]:
        async with self.room() as take:
            form = await self._read(request, take)
            try:
                yield form
            finally:
                _close(form)  # at once, so that its disk is free before its bytes are given back

    async def _read(self, request: Request, take: Callable[[int], None]) -> FormData:
        kind = request.headers.get("content-type", "")
        pieces = self.pieces(request, self.limits.body_bytes, take)
        if kind.partition(";")[0].strip().lower() != "multipart/form-data":
            raise Refusal(
                415,
                f"expected multipart/form-data with the pictures in {FIELDS[0]!r}, got {kind[:80] or 'no content type'}; "
                "try: curl -F files=@picture.jpg ADDRESS",
            )
        parser = _Parser(
            request.headers, (piece async for piece, _ in pieces), max_files=self.limits.files, max_fields=16
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many files"):
                raise Refusal(
                    413, f"more than {self.limits.files} files in one request; send them in several"
                ) from error
            raise Refusal(422, f"no readable multipart form: {error.message}") from error
        except (LookupError, ValueError) as error:  # a charset that Python has, and that decodes no names
            raise Refusal(422, f"no readable multipart form: {kind[:80]!r} names a charset that is none") from error
        if parser.began and not parser.ended:
            _close(form)
            raise Refusal(422, "the request was cut off before the form's last boundary; send it again, whole")
        return form

    def _too_large(self, most: int) -> Refusal:
        return Refusal(
            413,
            f"the request is larger than {most:,} bytes; send fewer or smaller files at a time",
            {"Connection": "close"},
        )

    def _busy(self) -> Refusal:
        refusal = Refusal(
            429,
            f"busy: requests of {self._held:,} bytes are here and at most {self.limits.spool_bytes:,} may be; "
            f"try again in {RETRY_AFTER} seconds",
            {"Retry-After": str(RETRY_AFTER), "Connection": "close"},
        )
        refusal.unheard = True
        return refusal


async def hear_out(request: Request, limits: Limits) -> None:
    """Read the rest of a refused body, within bounds, and keep none of it: hanging up on a sender hides the answer from it."""
    with contextlib.suppress(OverflowError, asyncio.TimeoutError):
        async for _ in _chunks(request, limits, LINGER, lambda n: None):
            pass


async def _chunks(
    request: Request, limits: Limits, most: int, take: Callable[[int], None]
) -> AsyncIterator[tuple[bytes, bool]]:
    """The body as it comes, each piece with whether more follow; `take` is told its size before it is kept, and may raise.

    Raises:
        TimeoutError: it came too slowly.
        OverflowError: it has more than `most` bytes; the argument is whether still more comes.
        ClientDisconnect: its sender went away.
    """
    size, until = 0, time.monotonic() + limits.body_seconds
    while True:
        patience = min(limits.stall_seconds, until - time.monotonic())
        message = await asyncio.wait_for(request.receive(), max(patience, 0))
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size > most:
            raise OverflowError(more)
        take(len(chunk))
        yield chunk, more
        if not more:
            return


def _close(form: FormData) -> None:
    for _, value in form.multi_items():
        if isinstance(value, UploadFile):
            value.file.close()


def uploads_in(form: FormData, item_noun: str, parameters: Collection[str]) -> list[tuple[str, UploadFile]]:
    """Names and files of the form; `parameters` are what belongs into the address instead.

    Raises:
        Refusal: no file, or something that is none; it is never followed.
    """
    found = []
    for field, value in form.multi_items():
        if field not in FIELDS:
            known = f"give it in the address: ?{field}=..." if field in parameters else "there is no such field"
            raise Refusal(422, f"{_shown(field)}: {known}; the form has {FIELDS[0]!r}, one or many {item_noun}s")
        if not isinstance(value, UploadFile):
            raise Refusal(
                422,
                f"{field}: expected a file, got text; nothing is fetched or opened by name, so send the picture itself: "
                f"curl -F {field}=@picture.jpg",
            )
        found.append((_shown(value.filename or "") or f"file {len(found) + 1}", value))
    if not found:
        raise Refusal(
            422, f"no {item_noun} in the request; send one or many in {FIELDS[0]!r}: curl -F files=@picture.jpg"
        )
    return found


def _shown(name: str) -> str:
    """A sender's name for something, fit to be said back: short, and without control characters."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return clean if len(clean) <= LONGEST_NAME else clean[: LONGEST_NAME - 1] + "…"
