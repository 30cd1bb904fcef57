"""Multipart bodies from strangers: as much as may come, in the time it may take, and nothing but files.

What is too large is given up on while it comes; a slow sender holds a socket and little memory, never a thread.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from lobbycard.web.service import Limits

FIELDS = ("files", "file")
LONGEST_NAME = 200  # characters of a file's name that are said back
LINGER = 256_000_000  # bytes of a refused body that are read and thrown away, so that its sender hears why


class Refusal(Exception):
    """An answer other than 200; `more` goes into the body beside `detail`."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any):
        super().__init__(detail)
        self.status, self.headers, self.body = status, headers, {"detail": detail, **more}


class _Parser(MultiPartParser):
    spool_max_size = 256 * 1024  # beyond it a file waits in an unnamed temporary file: slow senders hold little memory


async def read_form(request: Request, limits: Limits) -> FormData:
    """The request's parts. Raises Refusal; nothing is read of a body that says it is too large, nor more than may come."""
    too_large = Refusal(
        413,
        f"the request is larger than {limits.body_bytes:,} bytes; send fewer or smaller files at a time",
        {"Connection": "close"},
    )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.body_bytes:
        if "expect" not in request.headers and int(announced) <= LINGER:
            await _hear_out(request, limits)
        raise too_large
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise Refusal(
            415,
            f"expected multipart/form-data with the pictures in {FIELDS[0]!r}, got {kind[:80] or 'no content type'}; "
            "try: curl -F files=@picture.jpg ADDRESS",
        )
    parser = _Parser(
        request.headers, _chunks(request, limits, limits.body_bytes), max_files=limits.files, max_fields=16
    )
    try:
        return await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise Refusal(413, f"more than {limits.files} files in one request; send them in several") from error
        raise Refusal(422, f"no readable multipart form: {error.message}") from error
    except OverflowError as error:
        if error.args[0]:
            await _hear_out(request, limits)
        raise too_large from error
    except asyncio.TimeoutError as error:
        raise Refusal(
            408,
            f"the request came too slowly: a pause of {limits.stall_seconds:g} s or {limits.body_seconds:g} s in all; "
            "send smaller files",
            {"Connection": "close"},
        ) from error


async def _hear_out(request: Request, limits: Limits) -> None:
    """Read the rest of a refused body, within bounds, and keep none of it: hanging up on a sender hides the answer from it."""
    with contextlib.suppress(OverflowError, asyncio.TimeoutError):
        async for _ in _chunks(request, limits, LINGER):
            pass


async def _chunks(request: Request, limits: Limits, most: int) -> AsyncIterator[bytes]:
    """The body as it comes.

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
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise OverflowError(message.get("more_body", False))
        yield chunk
        if not message.get("more_body", False):
            return


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
