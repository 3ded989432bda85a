"""The outermost HTTP layer: bounds and records every request body, whatever its path and content."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud_stub.errors import RecordError
from cloud_stub.intake import Intake
from cloud_stub.openai_schema import error_body

MAX_BODY_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class _Body:
    """What arrived of a body; `fault` says why it is not all of it, "" if it is."""

    data: bytes
    fault: str


class HttpIntake:
    """ASGI middleware: no request is answered, or even routed, before it is recorded."""

    def __init__(self, app: ASGIApp, intake: Intake) -> None:
        self._app = app
        self._intake = intake

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        try:
            if not _is_probe(scope, body):
                await self._intake.received(_entry(scope, body))
        except RecordError as exc:
            await _refuse(500, str(exc), "record_failed", scope, receive, send)
            return
        if body.fault == "too large":
            message = f"the body is larger than {MAX_BODY_BYTES} bytes"
            await _refuse(413, message, "body_too_large", scope, receive, send)
        elif not body.fault:
            await self._app(scope, _replay(body.data, receive), send)


async def _read(receive: Receive) -> _Body:
    data = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _Body(bytes(data), "client left")
        data += message.get("body", b"")
        if len(data) > MAX_BODY_BYTES:
            return _Body(bytes(data), "too large")
        if not message.get("more_body", False):
            return _Body(bytes(data), "")


def _is_probe(scope: Scope, body: _Body) -> bool:
    """Health checks and scrapes carry nothing of a user's, and would drown the record."""
    return scope["method"] in ("GET", "HEAD") and not scope["query_string"] and not body.data


def _entry(scope: Scope, body: _Body) -> Mapping[str, object]:
    """The whole request for the record: the body as it was sent, and as JSON, where no escape hides a character."""
    query = scope["query_string"]
    entry: dict[str, object] = {
        "protocol": "http",
        "method": scope["method"],
        "path": scope["path"] + ("?" + _text(query) if query else ""),
        "headers": [[_text(key), _text(value)] for key, value in scope["headers"]],
        "request": _parsed(body.data),
        "body": _text(body.data),
    }
    if body.fault:
        entry["incomplete"] = body.fault
    return entry


def _parsed(data: bytes) -> object:
    """The body's JSON; None if it is none, or none that the record could hold (NaN, endless nesting)."""
    try:
        value: object = json.loads(data)
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    return value


def _text(data: bytes) -> str:
    """Bytes as searchable text; what is no UTF-8 becomes \\x escapes."""
    return data.decode("utf-8", "backslashreplace")


def _replay(data: bytes, receive: Receive) -> Receive:
    """The body once more for the application, then what the server says next (that the client left)."""
    messages: list[Message] = [{"type": "http.request", "body": data, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _refuse(status: int, message: str, code: str, scope: Scope, receive: Receive, send: Send) -> None:
    kind = "invalid_request_error" if status < 500 else "server_error"
    response = JSONResponse(error_body(message, kind, code), status, {"connection": "close"})
    await response(scope, receive, send)
