"""The OpenAI-compatible HTTP API and /metrics: JSON and SSE stop here."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping
from typing import TypeVar

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cloud_stub import openai_schema
from cloud_stub.cloud import Cloud, Delta, Finished
from cloud_stub.errors import CutError, InjectedError, RequestError, StoppingError
from cloud_stub.http_intake import HttpIntake
from cloud_stub.intake import Intake
from cloud_stub.metrics import Metrics
from cloud_stub.request_id import request_id_from

_T = TypeVar("_T")
RETRY_AFTER_S = 1


class HttpServer:
    """One uvicorn server inside the process's event loop; signals stay with the process."""

    def __init__(self, cloud: Cloud, intake: Intake, metrics: Metrics) -> None:
        self._cloud = cloud
        self._metrics = metrics
        self._created = int(time.time())
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/healthz", self._healthz),
            Route("/metrics", self._exposition),
        ]
        handlers = {404: _no_route, 405: _no_route}
        app = HttpIntake(Starlette(routes=routes, exception_handlers=handlers), intake)
        config = uvicorn.Config(
            app, http="h11", ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    def start(self, listener: socket.socket) -> None:
        """Serve on a bound socket."""
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))

    async def stop(self, grace_s: float) -> None:
        """Take no new connection, let running requests end within `grace_s`, then cut them."""
        self._server.config.timeout_graceful_shutdown = int(grace_s)
        self._server.should_exit = True
        if self._task is not None:
            await self._task

    async def _chat(self, request: Request) -> Response:
        request_id = request_id_from(request.headers.get("x-request-id"))
        try:
            body = openai_schema.parse_body(await request.body(), request_id)
            if body.stream:
                return await self._stream(request, body)
            return await _unless_client_leaves(request, self._whole(body))
        except RequestError as exc:
            return _error(400, str(exc), "invalid_request_error", "invalid_request")
        except InjectedError as exc:
            headers = {"retry-after": str(RETRY_AFTER_S)} if exc.status.retry_helps else {}
            return _error(exc.status.http, str(exc), "injected_failure", exc.status.grpc.name.lower(), headers)
        except StoppingError as exc:
            return _error(503, str(exc), "server_error", "stopping")
        except CutError:
            return _CutResponse()
        except _ClientLeftError:
            # Nobody reads this; the name is nginx's for it.
            return Response(status_code=499)

    async def _whole(self, body: openai_schema.ChatBody) -> Response:
        pieces: list[str] = []
        async with contextlib.aclosing(self._cloud.generate(body.request)) as events:
            async for event in events:
                if isinstance(event, Delta):
                    pieces.append(event.text)
                else:
                    end = event
        answer = openai_schema.completion(
            body.request.request_id, self._cloud.model, self._created, "".join(pieces), end
        )
        return JSONResponse(answer)

    async def _stream(self, request: Request, body: openai_schema.ChatBody) -> Response:
        """Wait for the first event, so that a failure before it has its own HTTP status; then stream."""
        events = self._cloud.generate(body.request)
        try:
            first = await _unless_client_leaves(request, anext(events))
        except BaseException:
            await events.aclose()
            raise
        writer = openai_schema.ChunkWriter(
            body.request.request_id, self._cloud.model, self._created, body.include_usage
        )
        return _SseResponse(_sse(first, events, writer))

    async def _models(self, _request: Request) -> Response:
        return JSONResponse(openai_schema.model_list(self._cloud.model, self._created))

    async def _healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _exposition(self, request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(self._metrics.registry), headers={"content-type": content_type})


class _Server(uvicorn.Server):
    """uvicorn would install signal handlers of its own; the process's own drain both protocols together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


class _CutResponse(Response):
    """Begins an answer and breaks off: uvicorn closes the connection of a response that was not completed."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


class _SseResponse(StreamingResponse):
    """A stream that may be cut: the connection then closes without the stream's end."""

    media_type = "text/event-stream"

    async def stream_response(self, send: Send) -> None:
        with contextlib.suppress(CutError):
            await super().stream_response(send)


class _ClientLeftError(Exception):
    """The client closed the connection before it was answered."""


async def _unless_client_leaves(request: Request, work: Coroutine[object, object, _T]) -> _T:
    """Run `work`, cancelling it when the connection closes. Raises _ClientLeftError then."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_client_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise _ClientLeftError
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.wait((working, leaving))


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _sse(
    first: Delta | Finished, rest: AsyncGenerator[Delta | Finished, None], writer: openai_schema.ChunkWriter
) -> AsyncGenerator[str, None]:
    async with contextlib.aclosing(rest):
        for chunk in writer.write(first):
            yield _sse_event(chunk)
        async for event in rest:
            for chunk in writer.write(event):
                yield _sse_event(chunk)
        yield "data: [DONE]\n\n"


def _sse_event(chunk: dict[str, object]) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"


async def _no_route(_request: Request, _exc: Exception) -> Response:
    return _error(404, "no such route; POST /v1/chat/completions answers", "invalid_request_error", "not_found")


def _error(status: int, message: str, kind: str, code: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(openai_schema.error_body(message, kind, code), status, headers)
