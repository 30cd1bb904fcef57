"""The REST API: pictures in by multipart, JSON out, errors that say what was wrong with which file.

An app of its own, complete with its document and its error handling, so that nothing of the page it stands beside
touches it. Its coroutines never decode: the service's own threads do that, and the framework's write large files to disk.
"""

import asyncio
import base64
import binascii
import math
import secrets
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from lobbycard import __version__
from lobbycard.poster.answers import Choice
from lobbycard.web.apidocs import docs_page
from lobbycard.web.batcher import Busy
from lobbycard.web.contract import Contract, Options
from lobbycard.web.intake import Intake, Refusal, uploads_in
from lobbycard.web.service import Reading, Service

PREFIX = "/api/v1"
STATUSES = {"not_image": 415, "too_large": 413, "truncated": 422, "unreadable": 422}


def is_api_path(path: str) -> bool:
    """Whether a request's path is the API's, rather than the page's."""
    return path == PREFIX or path.startswith(f"{PREFIX}/") or path in ("/docs", "/openapi.json")


def build_api(service: Service, *, item_noun: str, label_noun: str, auth: tuple[str, str] | None = None) -> FastAPI:
    """The API over one service.

    Args:
        item_noun: what a picture is called ("poster").
        label_noun: what a label is called ("genre"); its plural is the key of the labels in each result.
        auth: user and password that HTTP Basic must give, everywhere but at health.
    """
    contract = Contract(item_noun, label_noun, service.labels, service.limits, service.predictor.size, bool(auth))
    api = FastAPI(
        title=f"{item_noun.capitalize()} to {label_noun}s",
        description=contract.description,
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lose the path that a proxy shows this under
    )
    about, intake = _finite(_about(service, contract)), Intake(service.limits)
    api.state.intake = intake
    guarded = [Depends(_guard(auth))] if auth else []

    @api.post(f"{PREFIX}/predict", dependencies=guarded, **contract.predict)
    async def predict(request: Request, options: Annotated[Options, Query()]) -> JSONResponse:
        began = time.perf_counter()
        _once(request)
        async with intake.form(request) as form:
            uploads = uploads_in(form, item_noun, Options.model_fields)
            readings = await _read(request, service, uploads, options.tta)
        choice = Choice(options.top_k, options.threshold, options.shift)
        found = {
            "model": about["model"],
            "runtime": about["runtime"],
            "precision": about["precision"],
            "results": [_result(service, reading, choice, contract.plural) for reading in readings],
            "milliseconds": round(1000 * (time.perf_counter() - began), 1),
        }
        errors = [result["error"] for result in found["results"]]
        if all(errors):
            statuses = {error["status"] for error in errors}
            raise Refusal(
                statuses.pop() if len(statuses) == 1 else 422, "; ".join(e["message"] for e in errors)[:2000], **found
            )
        return JSONResponse(found)

    @api.head(f"{PREFIX}/model", dependencies=guarded, include_in_schema=False)
    @api.get(f"{PREFIX}/model", dependencies=guarded, **contract.model)
    async def model() -> JSONResponse:
        return JSONResponse(about)

    @api.head(f"{PREFIX}/health", include_in_schema=False)
    @api.get(f"{PREFIX}/health", **contract.health)
    async def health() -> JSONResponse:
        if service.ready:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "warming up"}, 503, {"Retry-After": "1"})

    def document(request: Request) -> dict[str, Any]:
        return {**api.openapi(), "servers": [{"url": request.scope.get("root_path", "") or "/"}]}

    @api.head("/openapi.json", dependencies=guarded, include_in_schema=False)
    @api.get("/openapi.json", dependencies=guarded, include_in_schema=False)
    async def openapi(request: Request) -> JSONResponse:
        return JSONResponse(document(request))

    @api.head("/docs", dependencies=guarded, include_in_schema=False)
    @api.get("/docs", dependencies=guarded, include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        address = root if "://" in root else str(request.base_url).rstrip("/")
        return HTMLResponse(docs_page(document(request), address))

    _answer_errors(api)
    return api


def _answer_errors(api: FastAPI) -> None:
    """Every refusal is JSON with a `detail` in words."""

    @api.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return JSONResponse(error.body, error.status, error.headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": "; ".join(map(_in_words, error.errors()))}, 422)

    @api.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if error.status_code == 404:
            detail = f"nothing is here; the API has {PREFIX}/predict, {PREFIX}/model, {PREFIX}/health, and /docs"
        elif error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            detail = f"{request.method} is not for this address; it takes {allowed}"
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    @api.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"detail": "the sender went away"}, 499)  # read by nobody; the number is for logs

    @api.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "an error of the server's; its log has the traceback"}, 500)


def _in_words(error: dict[str, Any]) -> str:
    name = ".".join(str(part) for part in error["loc"][1:])
    if error["type"] == "extra_forbidden":
        return f"{name}: no such parameter; there are {', '.join(Options.model_fields)}"
    return f"{name}: {error['msg'][0].lower()}{error['msg'][1:]}, got {str(error.get('input'))[:80]!r}"


def _once(request: Request) -> None:
    """Raises Refusal for a parameter that is given twice, of which the framework would take the last."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise Refusal(422, f"{name[:80]}: given {names.count(name)} times, expected once")


def _guard(auth: tuple[str, str]) -> Any:
    expected = f"{auth[0]}:{auth[1]}".encode()

    async def check(request: Request) -> None:
        kind, _, encoded = request.headers.get("authorization", "").partition(" ")
        try:
            given = base64.b64decode(encoded, validate=True) if kind.lower() == "basic" else b""
        except (binascii.Error, ValueError):
            given = b""
        if not secrets.compare_digest(given, expected):
            raise Refusal(
                401,
                "user and password are asked for here, by HTTP Basic: curl --user name:password",
                {"WWW-Authenticate": 'Basic realm="api", charset="UTF-8"'},
            )

    return check


async def _read(
    request: Request, service: Service, uploads: Sequence[tuple[str, UploadFile]], tta: bool
) -> list[Reading]:
    """A reading for each upload, in order; if the sender goes away, what still waits is given up."""
    most = service.limits.file_bytes
    small = [(name, upload) for name, upload in uploads if (upload.size or 0) <= most]
    try:
        futures = service.submit([u.file for _, u in small], tta, [name for name, _ in small]) if small else []
    except Busy as error:
        raise Refusal(429, str(error), {"Retry-After": str(error.retry_after)}) from error
    gone = asyncio.ensure_future(_gone(request))
    work = asyncio.gather(*map(asyncio.wrap_future, futures))
    work.add_done_callback(lambda done: done.cancelled() or done.exception())  # else asyncio logs what nobody waits for
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        read = iter(work.result())
    finally:
        gone.cancel()
        work.cancel()
    too_large = "{}: {:,} bytes, at most {:,} are taken; scale it down"
    return [
        next(read)
        if (upload.size or 0) <= most
        else Reading(name, error=too_large.format(name, upload.size, most), status="too_large")
        for name, upload in uploads
    ]


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _result(service: Service, reading: Reading, choice: Choice, plural: str) -> dict[str, Any]:
    if reading.error:
        error = {"status": STATUSES[reading.status], "message": reading.error}
        return {"file": reading.name, plural: [], "guess": False, "unlike": None, "probabilities": {}, "error": error}
    return service.described(reading, choice, plural) | {"error": None}


def _finite(value: Any) -> Any:
    """What JSON can say: a number that is none, as a metric of too few items may be, is null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _about(service: Service, contract: Contract) -> dict[str, Any]:
    """What `GET model` says; the model's name is its architecture and a fingerprint of its files."""
    predictor, about = service.predictor, service.predictor.folder.about
    files = "".join(f"{name}{digest}" for name, digest in sorted(about.get("files", {}).items()))
    return {
        "model": f"{about.get('arch', 'model')}-{sha256(files.encode()).hexdigest()[:8]}",
        "labels": service.labels,
        "thresholds": {k: float(v) for k, v in zip(service.labels, predictor.thresholds, strict=True)},
        "metrics": about.get("metrics", {}),
        "input": about.get("input", {}),
        "runtime": predictor.runtime,
        "precision": predictor.precision,
        "limits": contract.limits,
        "versions": {"service": __version__, **{f"model/{k}": v for k, v in about.get("versions", {}).items()}},
    }
