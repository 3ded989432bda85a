"""Stand-ins for edge node and clouds that run in the test's event loop and keep every byte they receive."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from flashgate.v1 import cloud_pb2, common_pb2, edge_pb2
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

LOOPBACK = "127.0.0.1:0"
STOP = common_pb2.FINISH_REASON_STOP


@dataclass
class Script:
    """How a fake answers its next requests."""

    texts: Sequence[str] = ("Hello", " world")
    # Instead of an answer.
    error: grpc.StatusCode | None = None
    error_reason: str = ""
    # After so many texts the stream breaks.
    break_after: int | None = None
    # After so many texts nothing comes any more.
    hang_after: int | None = None


@dataclass
class Seen:
    """What a fake received, and whether its caller stayed."""

    payloads: list[bytes] = field(default_factory=list)
    metadata: list[list[tuple[str, str | bytes]]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    def holds(self, text: str) -> bool:
        return any(text.encode() in payload for payload in self.payloads)


class FakeGrpc:
    """A gRPC server on a port of its own."""

    service = ""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.seen = Seen()
        self.address = ""
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start(LOOPBACK)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, address: str) -> None:
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(self.service, self.handlers()),))
        await self.add_more(self._server)
        port = self._server.add_insecure_port(address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        return {"Generate": grpc.unary_stream_rpc_method_handler(self._generate)}

    async def add_more(self, server: grpc.aio.Server) -> None:
        """Other services of the same server."""

    def text(self, text: str) -> bytes:
        raise NotImplementedError

    def end(self, num_texts: int) -> bytes:
        raise NotImplementedError

    async def _generate(
        self, payload: bytes, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> AsyncGenerator[bytes, None]:
        script = self.script
        self.seen.payloads.append(payload)
        self.seen.metadata.append(list(context.invocation_metadata() or ()))
        try:
            if script.error is not None:
                await _abort(context, script.error, script.error_reason)
            for index, text in enumerate(script.texts):
                await self._incident(script, index, context)
                yield self.text(text)
            await self._incident(script, len(script.texts), context)
            yield self.end(len(script.texts))
        except (GeneratorExit, asyncio.CancelledError):
            self.seen.cancelled.set()
            raise

    async def _incident(self, script: Script, index: int, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        if script.break_after == index:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, "ENGINE_DIED")
        if script.hang_after == index:
            self.seen.hanging.set()
            await asyncio.Event().wait()


class FakeEdge(FakeGrpc):
    """EdgeService."""

    service = "flashgate.v1.EdgeService"

    def __init__(self, script: Script | None = None, **status: Any) -> None:
        super().__init__(script)
        self.status = edge_pb2.EdgeServiceGetStatusResponse(
            **{
                "model": "edge-model",
                "engine_state": edge_pb2.ENGINE_STATE_READY,
                "context_tokens": 4096,
                "queue_limit": 8,
                "prefill_tokens_per_second": 1000,
                "decode_tokens_per_second": 100,
                "prompt_bytes_per_token": 4,
                **status,
            }
        )
        self.num_polls = 0

    def handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        return {**super().handlers(), "GetStatus": grpc.unary_unary_rpc_method_handler(self._get_status)}

    def text(self, text: str) -> bytes:
        tokens = edge_pb2.EdgeTokens(ids=[1], text=text)
        return edge_pb2.EdgeServiceGenerateResponse(tokens=tokens).SerializeToString()

    def end(self, num_texts: int) -> bytes:
        usage = common_pb2.Usage(prompt_tokens=7, completion_tokens=num_texts)
        finished = edge_pb2.EdgeFinished(finish_reason=STOP, usage=usage, reused_prompt_tokens=3)
        return edge_pb2.EdgeServiceGenerateResponse(finished=finished).SerializeToString()

    async def _get_status(self, _payload: bytes, _context: object) -> bytes:
        self.num_polls += 1
        return self.status.SerializeToString()


class FakeCloud(FakeGrpc):
    """CloudService with health."""

    service = "flashgate.v1.CloudService"

    async def add_more(self, server: grpc.aio.Server) -> None:
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        await servicer.set(self.service, health_pb2.HealthCheckResponse.SERVING)

    def text(self, text: str) -> bytes:
        delta = cloud_pb2.CloudDelta(text=text, model="cloud-model")
        return cloud_pb2.CloudServiceGenerateResponse(delta=delta).SerializeToString()

    def end(self, num_texts: int) -> bytes:
        usage = common_pb2.Usage(prompt_tokens=7, completion_tokens=num_texts)
        finished = cloud_pb2.CloudFinished(finish_reason=STOP, usage=usage)
        return cloud_pb2.CloudServiceGenerateResponse(finished=finished).SerializeToString()


class FakeHttp:
    """Answers HTTP requests with the bytes that `reply` gives, and keeps each request's."""

    def __init__(self, reply: Callable[[bytes], bytes]) -> None:
        self._reply = reply
        self.requests: list[bytes] = []
        self.left = asyncio.Event()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def chats(self) -> list[bytes]:
        return [request for request in self.requests if b"/chat/completions" in request.partition(b"\r\n")[0]]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                ),
                0,
            )
            request = head + await reader.readexactly(length)
            self.requests.append(request)
            writer.write(self._reply(request))
            await writer.drain()
            if b"connection: close" not in self._reply(request).lower():
                await reader.read()
                self.left.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


def http(status: str, body: bytes, content_type: str = "application/json", *headers: str) -> bytes:
    """One whole response that closes its connection."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode() + body


def sse(*values: object, done: bool = True) -> bytes:
    """One whole event stream."""
    events = [f"data: {json.dumps(value)}\n\n" for value in values] + (["data: [DONE]\n\n"] if done else [])
    return http("200 OK", "".join(events).encode(), "text/event-stream")


def chunk(text: str | None, finish_reason: str | None = None) -> dict[str, object]:
    delta = {} if text is None else {"content": text}
    return {"model": "gpt-fake", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}


async def until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Wait for a condition. Fails, saying `what` was awaited, after the timeout."""
    try:
        async with asyncio.timeout(timeout_s):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"not within {timeout_s:g} s: {what}") from None


async def _abort(context: "grpc.aio.ServicerContext[Any, Any]", code: grpc.StatusCode, reason: str) -> None:
    rich = status_pb2.Status(code=code.value[0], message="the request said CANARY")
    rich.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="flashgate"))
    rich.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=3)))
    await context.abort(code, rich.message, (("grpc-status-details-bin", rich.SerializeToString()),))
