"""What the API promises, in OpenAPI's words: bodies, statuses, examples. The routes themselves are in `api`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lobbycard.web.batcher import RETRY_AFTER
from lobbycard.web.service import Limits

SHARE = {"type": "number", "minimum": 0, "maximum": 1}
TEXT = {"type": "string"}


class Options(BaseModel):
    """What a request may choose; the defaults are the model's own."""

    model_config = ConfigDict(extra="forbid")

    top_k: int | None = Field(None, ge=1, le=10_000, description="At most so many labels a file.", examples=[3])
    threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="One threshold for all labels; without it each label has the model's own.",
        examples=[0.4],
    )
    shift: float = Field(
        0.0,
        ge=-20,
        le=20,
        allow_inf_nan=False,
        description="Moves all thresholds, in log-odds: above 0 stricter, below 0 bolder.",
        examples=[-0.7],
    )
    tta: bool = Field(False, description="Average over three views of each picture, at three times the cost.")


class Contract:
    """The document's parts for one model: `predict`, `model` and `health` are keyword arguments of their routes."""

    def __init__(
        self, item_noun: str, label_noun: str, labels: Sequence[str], limits: Limits, size: tuple[int, int], auth: bool
    ):
        """`size` is the network's input, height and width; `auth` whether a password is asked for."""
        self.item, self.label, self.plural = item_noun, label_noun, f"{label_noun}s"
        self.limits = asdict(limits)
        self._labels, self._limits, self._auth = list(labels), limits, auth
        height, width = size
        self.description = (
            f"Send {item_noun}s, get {self.plural} with probabilities. Pictures are JPEG, PNG, WebP, GIF (first frame), AVIF "
            f"or BMP, at most {limits.file_bytes / 1e6:g} MB and {limits.pixels / 1e6:g} megapixels each; the model sees them at "
            f"{width} x {height} pixels, so smaller ones travel faster. Nothing that is sent is kept."
        )
        self.predict = self._predict()
        self.model = {
            "summary": "The model: labels, thresholds, quality, limits",
            "responses": self._answers({200: ("About the model.", {"type": "object"}, None)}),
        }
        state = {"type": "object", "required": ["status"], "properties": {"status": {"enum": ["ready", "warming up"]}}}
        self.health = {
            "summary": "Whether the model answers",
            "description": "Never waits behind other requests, and asks for no password.",
            "responses": {
                200: _answer("The model answers.", state, {"status": "ready"}),
                503: _answer("Not yet; ask again.", state, {"status": "warming up"}),
            },
        }

    def _predict(self) -> dict[str, Any]:
        limits, item, plural = self._limits, self.item, self.plural
        refusal = {"type": "object", "required": ["detail"], "properties": {"detail": TEXT}}
        found = self._found()
        either = {"anyOf": [{**found, "required": [*found["required"], "detail"]}, refusal]}
        files = {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}}
        part = {
            "type": "object",
            "required": ["files"],
            "additionalProperties": False,
            "properties": {
                "files": {
                    **files,
                    "minItems": 1,
                    "maxItems": limits.files,
                    "description": f"One or many {item}s, each a part of its own.",
                }
            },
        }
        return {
            "summary": f"{item.capitalize()}s in, {plural} out",
            "description": (
                f"Results come in the order of the files. A {item} that cannot be read has its `error` in its place and an "
                f"empty list; only when none can be read is the status not 200. When no {self.label} reaches its threshold the "
                "best one is given all the same, and `guess` is true."
            ),
            "openapi_extra": {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": part}}}},
            "responses": self._answers(
                {
                    200: (f"At least one {item} was read.", found, self._example()),
                    408: ("The request came too slowly.", refusal, None),
                    413: (
                        f"Too large: every file over {limits.file_bytes:,} bytes or {limits.pixels:,} pixels, the request over "
                        f"{limits.body_bytes:,} bytes, or more than {limits.files} files.",
                        either,
                        {"detail": f"more than {limits.files} files in one request; send them in several"},
                    ),
                    415: (
                        "No multipart form, or no file is a picture.",
                        either,
                        {
                            "detail": "a.jpg: not a picture but a web page; expected one of JPEG, PNG, WEBP, GIF, AVIF, BMP"
                        },
                    ),
                    422: ("A parameter that means nothing, no file, or no file that can be read.", either, None),
                    429: (
                        "Too much waits already; come again after the seconds in `Retry-After`.",
                        refusal,
                        {
                            "detail": f"busy: {limits.waiting} pictures are waiting and at most {limits.waiting} may; "
                            f"try again in {RETRY_AFTER} seconds"
                        },
                    ),
                }
            ),
        }

    def _answers(self, known: dict[int, tuple[str, dict, Any]]) -> dict[int, dict[str, Any]]:
        if self._auth:
            refusal = {"type": "object", "required": ["detail"], "properties": {"detail": TEXT}}
            known = {**known, 401: ("HTTP Basic with the user and password is asked for.", refusal, None)}
        return {status: _answer(*answer) for status, answer in sorted(known.items())}

    def _found(self) -> dict[str, Any]:
        one = {
            "type": "object",
            "required": ["name", "probability", "threshold"],
            "properties": {"name": {"enum": self._labels}, "probability": SHARE, "threshold": SHARE},
        }
        error = {
            "type": ["object", "null"],
            "required": ["status", "message"],
            "properties": {"status": {"enum": [413, 415, 422]}, "message": TEXT},
        }
        properties = {
            "file": {**TEXT, "description": "The name that was sent with it."},
            self.plural: {
                "type": "array",
                "items": one,
                "description": "Most probable first; never empty without an error.",
            },
            "guess": {"type": "boolean", "description": "Nothing reached its threshold; the best one is given."},
            "unlike": {"type": ["string", "null"], "description": f"Why the picture looks unlike a {self.item}."},
            "probabilities": {
                "type": "object",
                "additionalProperties": SHARE,
                "description": f"Of every {self.label}.",
            },
            "error": error,
        }
        result = {"type": "object", "required": list(properties), "properties": properties}
        whole = {
            "model": TEXT,
            "runtime": TEXT,
            "precision": TEXT,
            "results": {"type": "array", "items": result},
            "milliseconds": {"type": "number", "description": "From the request's beginning, waiting included."},
        }
        return {"type": "object", "required": list(whole), "properties": whole}

    def _example(self) -> dict[str, Any]:
        first, *rest = self._labels[:3]
        return {
            "model": "resnet50-0f1e2d3c",
            "runtime": "onnx",
            "precision": "fp32",
            "results": [
                {
                    "file": f"{self.item}.jpg",
                    self.plural: [{"name": first, "probability": 0.91, "threshold": 0.42}],
                    "guess": False,
                    "unlike": None,
                    "probabilities": {first: 0.91, **dict.fromkeys(rest, 0.04)},
                    "error": None,
                }
            ],
            "milliseconds": 38.2,
        }


def _answer(description: str, schema: dict[str, Any], example: Any) -> dict[str, Any]:
    body = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"description": description, "content": {"application/json": body}}
