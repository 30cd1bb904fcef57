"""Who answers a request, the API or Gradio's page, and what Gradio itself does not bound: bodies, doors, its own errors."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect, Request

from lobbycard.web.api import is_api_path
from lobbycard.web.intake import Intake, Refusal, hear_out

UPLOAD = "/gradio_api/upload"
JSON_BYTES = 2_000_000  # of a request that is no upload; the values of an event with 200 file names take 100 kB
# What the page has no use for. Deep links would write a visitor's state to disk and show it to whoever has the link.
CLOSED = (
    "/monitoring",
    *(
        f"/gradio_api/{name}"
        for name in (
            "api/",
            "component_server",
            "custom_component/",
            "deep_link",
            "dev/",
            "monitoring",
            "process_recording",
            "profiling",
            "proxy=",
            "run-history",
            "run/",
            "runs",
            "stream/",
            "undo-vibe-edit",
            "vibe-",
        )
    ),
)


class Desk:
    """Hands requests to the API or to the page, and counts those that somebody waits for.

    It stands before gradio's app with its catch-all routes, its permissive CORS and its compression, so none of them
    touches the API. A page's heartbeat stream lasts as long as the page is open: nobody waits for it.
    """

    def __init__(self, api: FastAPI):
        """`api` comes from `build_api`; the page's bodies count into its intake's room."""
        self._api, self._page = api, None
        self._intake: Intake = api.state.intake
        self.waiting = 0

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Of gradio's app: takes its place in front of it, once gradio has built it and before requests come."""
        self._page, app.middleware_stack = app.middleware_stack, self
        yield

    async def __call__(self, scope: MutableMapping, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self._page(scope, receive, send)
            return
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        waited_for = "/heartbeat/" not in path
        self.waiting += waited_for
        try:
            if is_api_path(path):
                await self._api(scope, receive, send)
            elif path.startswith(CLOSED):
                await JSONResponse({"detail": "nothing is here"}, 404)(scope, receive, send)
            else:
                await self._ask_page(scope, receive, send, path)
        finally:
            self.waiting -= waited_for

    async def _ask_page(self, scope: MutableMapping, receive: Callable, send: Callable, path: str) -> None:
        limits = self._intake.limits
        request, answer = Request(scope, receive), _Answer(send)
        try:
            async with self._intake.room() as take:
                # Gradio's page sends all the files of one drop in one request; half the room is left for others.
                most = limits.spool_bytes // 2 if path.rstrip("/") == UPLOAD else JSON_BYTES
                body = _Body(self._intake.pieces(request, most, take), receive)
                answer.refused = lambda: body.refusal is not None
                has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
                try:
                    await self._page(scope, body.receive if has_body else receive, answer.send)
                except Exception as error:
                    if body.refusal is None and not isinstance(error, ClientDisconnect):
                        raise
                if body.refusal is not None:
                    raise body.refusal
            await answer.flush()
        except Refusal as error:
            if error.unheard:
                await hear_out(request, limits)
            await answer.instead(JSONResponse(error.body, error.status, error.headers), scope, receive)
        except Exception as error:
            # Gradio looks up what a client names, and takes what it says, without a check.
            theirs = isinstance(error, LookupError | TypeError | ValueError) or type(error).__module__.startswith(
                "gradio"
            )
            logging.getLogger(__name__).warning("%r: %s: %.200r", path[:200], type(error).__name__, str(error))
            detail = "a request that the page cannot read; reload the page" if theirs else "an error of the server's"
            await answer.instead(JSONResponse({"detail": detail}, 400 if theirs else 500), scope, receive)


class _Body:
    """A request's body within bounds, for an app that knows of none: beyond them its sender seems to have gone."""

    def __init__(self, pieces: AsyncIterator[tuple[bytes, bool]], receive: Callable):
        self._pieces, self._receive, self._more = pieces, receive, True
        self.refusal: Refusal | None = None

    async def receive(self) -> dict[str, Any]:
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if not self._more:
            return await self._receive()
        try:
            piece, self._more = await anext(self._pieces)
        except Refusal as error:
            self.refusal = error
            return {"type": "http.disconnect"}
        except (ClientDisconnect, StopAsyncIteration):  # gone, or the app stopped waiting in the middle
            self._more = False
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": self._more}


class _Answer:
    """What an app sends, but for its word on a failure, which waits until it is known whether there is a better one."""

    def __init__(self, send: Callable):
        self._send, self._held, self._started = send, [], False
        self.refused: Callable[[], bool] = lambda: False

    async def send(self, message: MutableMapping) -> None:
        if self.refused():
            return
        if self._held or (message["type"] == "http.response.start" and message["status"] == 500):
            self._held.append(message)
            return
        self._started = True
        await self._send(message)

    async def flush(self) -> None:
        for message in self._held:
            await self._send(message)

    async def instead(self, response: JSONResponse, scope: MutableMapping, receive: Callable) -> None:
        if not self._started:
            await response(scope, receive, self._send)
