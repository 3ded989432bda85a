"""The OpenAI-compatible HTTP API, probes and /metrics: JSON and SSE stop here."""

import json
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from router.backends.backend import TextDelta
from router.errors import RouterError
from router.gateway import openai_answer, openai_request
from router.gateway.answer import Completion, Decision
from router.gateway.credentials import Credentials
from router.gateway.http_client import (
    ClientLeftError,
    MediaTypeError,
    SseResponse,
    read_body,
    unless_client_leaves,
)
from router.gateway.http_guard import HttpGuard
from router.gateway.http_listener import HttpListener
from router.gateway.status import Status, status_of
from router.gateway.use_case import Gateway, new_decision_id
from router.logging import Logger, failure_fields
from router.metrics import Metrics

# What is sent to a client that is no longer there; nginx's number for it, seen only in tests.
CLIENT_LEFT = 499

Events = AsyncGenerator[Decision | TextDelta | Completion, None]


class HttpServer:
    """One port for applications, probes and Prometheus."""

    def __init__(
        self,
        gateway: Gateway,
        credentials: Credentials,
        metrics: Metrics,
        log: Logger,
        *,
        only_loopback_hosts: bool,
    ) -> None:
        self._gateway = gateway
        self._credentials = credentials
        self._metrics = metrics
        self._log = log
        self._created = int(time.time())
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/healthz", self._healthz),
            Route("/readyz", self._readyz),
            Route("/metrics", self._exposition),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _http_exception})
        # A redirect to a path with or without a slash would repeat a request's body to wherever Host points.
        app.router.redirect_slashes = False
        self.app = HttpGuard(app, only_loopback_hosts=only_loopback_hosts)
        self._listener = HttpListener(self.app)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises ConfigError."""
        return await self._listener.start(host, port)

    async def stop(self, grace_s: float) -> None:
        await self._listener.stop(grace_s)

    async def _chat(self, request: Request) -> Response:
        decision_id = new_decision_id()
        try:
            tenant = self._credentials.tenant(request.headers.getlist("authorization"))
            chat = await self._read(request, tenant)
            events = self._gateway.generate(chat.generation, decision_id, None)
            if chat.stream:
                return await self._stream(request, chat, events)
            return await unless_client_leaves(request.receive, self._whole(events))
        except ClientLeftError:
            return Response(status_code=CLIENT_LEFT)
        except Exception as exc:
            if not isinstance(exc, RouterError):
                self._log.error("http_request_failed", decision_id=decision_id, **failure_fields(exc))
            return _failure(status_of(exc), decision_id)

    async def _read(self, request: Request, tenant: str) -> openai_request.ChatRequest:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise MediaTypeError(None, "the content-type must be application/json", "unsupported_media_type")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise MediaTypeError(None, "no content-encoding is supported", "unsupported_media_type")
        raw = await read_body(request)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        return openai_request.read(raw, headers, tenant)

    async def _whole(self, events: Events) -> Response:
        texts: list[str] = []
        decision: Decision | None = None
        async with aclosing(events):
            async for event in events:
                match event:
                    case Decision():
                        decision = event
                    case TextDelta():
                        texts.append(event.text)
                    case Completion() if decision is not None:
                        body = openai_answer.whole(decision, self._created, "".join(texts), event)
                        return JSONResponse(body, headers=openai_answer.route_headers(decision))
        raise AssertionError("the use case ends with a completion or an error")

    async def _stream(self, request: Request, chat: openai_request.ChatRequest, events: Events) -> Response:
        """Wait for the decision, so that what fails before the first text has its own HTTP status; then stream."""
        try:
            decision = await unless_client_leaves(request.receive, _decision(events))
        except BaseException:
            await events.aclose()
            raise
        writer = openai_answer.ChunkWriter(decision, self._created, chat.include_usage)
        return SseResponse(self._sse(events, writer), events, openai_answer.route_headers(decision))

    async def _sse(self, events: Events, writer: openai_answer.ChunkWriter) -> AsyncGenerator[bytes, None]:
        yield _event(writer.first())
        try:
            async for event in events:
                if isinstance(event, TextDelta):
                    yield _event(writer.text(event))
                elif isinstance(event, Completion):
                    for chunk in writer.last(event):
                        yield _event(chunk)
        except Exception as exc:
            if not isinstance(exc, RouterError):
                self._log.error("http_stream_failed", **failure_fields(exc))
            yield _event(_error_body(status_of(exc)))
            # No [DONE]: a client that does not know the error event must not take this for a whole answer.
            return
        yield b"data: [DONE]\n\n"

    async def _models(self, request: Request) -> Response:
        try:
            self._credentials.tenant(request.headers.getlist("authorization"))
        except RouterError as exc:
            return _failure(status_of(exc), None)
        entries = [
            {
                "id": state.model,
                "object": "model",
                "created": self._created,
                "owned_by": f"flashgate-{state.lane}",
                "flashgate": {"lane": state.lane, "backend": state.name, "available": state.available},
            }
            for state in self._gateway.states()
            if state.model
        ]
        return JSONResponse(openai_answer.model_list(entries))

    async def _healthz(self, _request: Request) -> Response:
        """The process answers."""
        return PlainTextResponse("ok\n")

    async def _readyz(self, _request: Request) -> Response:
        """200 while a request could be answered by at least one backend, else 503; a line for each says why."""
        states = self._gateway.states()
        lines = [f"{state.name}: {'ready' if state.available else state.cause}\n" for state in states]
        is_ready = self._gateway.is_accepting and any(state.available for state in states)
        return PlainTextResponse("".join(lines), 200 if is_ready else 503)

    async def _exposition(self, request: Request) -> Response:
        try:
            encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):
            # It reads versions as numbers. Who asks for something odd gets what everybody understands.
            encoder, content_type = choose_encoder("")
        return Response(encoder(self._metrics.registry), headers={"content-type": content_type})


async def _decision(events: Events) -> Decision:
    first = await anext(events)
    assert isinstance(first, Decision)  # noqa: S101 - what the use case guarantees
    return first


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _failure(status: Status, decision_id: str | None) -> Response:
    headers = {} if decision_id is None else {"x-flashgate-decision-id": decision_id}
    if status.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(status.retry_after_s)))
    if status.http == 401:
        headers["www-authenticate"] = "Bearer"
    if status.http in (408, 413):
        # The rest of the body is not read.
        headers["connection"] = "close"
    return JSONResponse(_error_body(status), status.http, headers)


def _error_body(status: Status) -> openai_answer.Json:
    return openai_answer.error(status.message, status.error_type, status.reason.lower(), status.param)


def _http_exception(_request: Request, exc: Exception) -> Response:
    """An unknown path, or a method that a path does not have."""
    assert isinstance(exc, HTTPException)  # noqa: S101 - Starlette's dispatch
    body = openai_answer.error(str(exc.detail), "invalid_request_error", f"http_{exc.status_code}")
    return JSONResponse(body, exc.status_code, exc.headers)
