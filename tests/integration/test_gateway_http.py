"""HTTP as it should not be: hostile, slow and vanishing clients, foreign pages, and the probes."""

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from router.gateway import http_client, http_listener
from tests.integration.gateway_fakes import FakeEdge, Script, until
from tests.integration.gateway_rig import Rig, rig

HELLO = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
CHAT = "POST /v1/chat/completions HTTP/1.1"
JSON = "content-type: application/json"
CANARY = "CANARY-4711"


class Connection:
    """A client that sends whatever it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers, body."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            length = int(headers.get("content-length", -1))
            body = await (self.reader.read() if length < 0 else self.reader.readexactly(length))
        return int(head[0].split()[1]), headers, body

    async def is_closed(self) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.read() == b""


async def connect(running: Rig) -> Connection:
    host, _, port = running.http_url.removeprefix("http://").partition(":")
    return Connection(*await asyncio.open_connection(host, int(port)))


async def send(running: Rig, *lines: str, body: bytes = b"", host: str | None = "localhost") -> Connection:
    connection = await connect(running)
    hosts = [] if host is None else [f"host: {host}"]
    says_length = any(line.startswith(("content-length", "transfer-encoding")) for line in lines)
    length = [] if says_length else [f"content-length: {len(body)}"]
    connection.writer.write("\r\n".join([*lines, *hosts, *length, "", ""]).encode("latin-1") + body)
    return connection


async def ask(
    running: Rig, *lines: str, body: bytes = b"", host: str | None = "localhost"
) -> tuple[int, dict[str, object]]:
    connection = await send(running, *lines, body=body, host=host)
    status, _, raw = await connection.response()
    connection.writer.close()
    error: dict[str, object] = json.loads(raw)["error"] if raw.startswith(b'{"error"') else {}
    return status, error


@pytest.fixture
async def edge() -> AsyncGenerator[FakeEdge, None]:
    async with FakeEdge() as fake:
        yield fake


@pytest.fixture
async def running(edge: FakeEdge) -> AsyncGenerator[Rig, None]:
    async with rig(edge=edge.address) as started:
        yield started


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"\xff", "invalid_json"),
        (b'{"model": "m", "model": "m"}', "invalid_json"),
        (b"{}", "missing_required_parameter"),
        (b'{"messages": []}', "missing_required_parameter"),
        (
            b'{"model": "m", "messages": [{"role": "user", "content": "CANARY-4711"}], "CANARY-4711 x": 1}',
            "unknown_parameter",
        ),
    ],
)
async def test_bad_body_is_a_bad_request(running: Rig, edge: FakeEdge, body: bytes, code: str) -> None:
    status, error = await ask(running, CHAT, JSON, body=body)
    assert (status, error["code"], error["type"]) == (400, code, "invalid_request_error")
    assert CANARY not in str(error)
    assert edge.seen.payloads == []


@pytest.mark.parametrize(
    ("lines", "status", "code"),
    [
        ([CHAT], 415, "unsupported_media_type"),
        ([CHAT, "content-type: text/plain"], 415, "unsupported_media_type"),
        ([CHAT, JSON, "content-encoding: gzip"], 415, "unsupported_media_type"),
        ([CHAT, JSON, JSON], 400, "duplicate_header"),
        ([CHAT, JSON, "authorization: Bearer a", "authorization: Bearer b"], 400, "duplicate_header"),
        ([CHAT, JSON, "x-flashgate-ttft-ms: soon"], 400, "invalid_value"),
        ([CHAT, JSON, "x-flashgate-ttft-ms: 1", "x-flashgate-ttft-ms: 2"], 400, "invalid_value"),
        ([CHAT, JSON, f"x-flashgate-tags: {'x' * 65}"], 400, "invalid_value"),
        ([CHAT, JSON, "host: other"], 400, "duplicate_header"),
        (["GET /v1/chat/completions HTTP/1.1"], 405, "http_405"),
        (["POST /v1/nothing HTTP/1.1", JSON], 404, "http_404"),
        (["POST /v1/chat/completions/ HTTP/1.1", JSON], 404, "http_404"),
    ],
)
async def test_bad_request_line_or_header_has_a_clear_answer(
    running: Rig, edge: FakeEdge, lines: list[str], status: int, code: str
) -> None:
    seen, error = await ask(running, *lines, body=HELLO)
    assert seen == status
    # Two hosts are refused by the HTTP parser already.
    assert error.get("code", "duplicate_header") == code
    assert edge.seen.payloads == []


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /" + b"x" * 70_000,
    ],
)
async def test_what_is_no_http_is_answered_or_closed(running: Rig, raw: bytes) -> None:
    connection = await connect(running)
    connection.writer.write(raw)
    connection.writer.write_eof()
    async with asyncio.timeout(10):
        answer = await connection.reader.read()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    connection.writer.close()
    assert (await ask(running, CHAT, JSON, body=HELLO))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "192.0.2.1", ""])
@pytest.mark.parametrize("path", ["POST /v1/chat/completions", "GET /metrics", "GET /v1/models", "GET /healthz"])
async def test_page_of_another_name_cannot_use_the_loopback_address(running: Rig, host: str, path: str) -> None:
    status, error = await ask(running, f"{path} HTTP/1.1", JSON, body=HELLO, host=host)
    assert (status, error["code"]) == (403, "foreign_host")


async def test_foreign_page_gets_no_permission_to_send_json(running: Rig) -> None:
    lines = [
        "OPTIONS /v1/chat/completions HTTP/1.1",
        "origin: https://evil.example",
        "access-control-request-method: POST",
    ]
    connection = await send(running, *lines)
    _, headers, _ = await connection.response()
    assert not [name for name in headers if name.startswith("access-control")]
    connection.writer.close()


async def test_body_announced_as_too_long_is_refused_unread(running: Rig) -> None:
    status, error = await ask(running, CHAT, JSON, f"content-length: {http_client.MAX_BODY_BYTES + 1}")
    assert (status, error["code"]) == (413, "body_too_long")


async def test_body_that_grows_too_long_is_refused(running: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MAX_BODY_BYTES", 1000)
    body = b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"
    status, error = await ask(running, CHAT, JSON, "transfer-encoding: chunked", body=body)
    assert (status, error["code"]) == (413, "body_too_long")


async def test_content_of_the_largest_size_is_answered(running: Rig) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * (4 << 20)}]}).encode()
    assert (await ask(running, CHAT, JSON, body=body))[0] == 200


async def test_body_that_does_not_come_is_not_waited_for(running: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "BODY_TIMEOUT_S", 0.1)
    status, error = await ask(running, CHAT, JSON, "content-length: 100", body=b"{")
    assert (status, error["code"]) == (408, "body_too_slow")


@pytest.mark.parametrize("first", [b"", b"POST /v1/chat"])
async def test_head_that_does_not_come_closes_the_connection(
    running: Rig, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr(http_listener, "HEAD_TIMEOUT_S", 0.1)
    connection = await connect(running)
    connection.writer.write(first)
    assert await connection.is_closed()
    connection.writer.close()


async def test_second_head_that_does_not_come_closes_the_connection(
    running: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await send(running, "GET /healthz HTTP/1.1")
    assert (await connection.response())[0] == 200
    monkeypatch.setattr(http_listener, "HEAD_TIMEOUT_S", 0.1)
    connection.writer.write(b"GET /hea")
    assert await connection.is_closed()
    connection.writer.close()


@pytest.mark.parametrize("body", [HELLO, HELLO[:-1] + b', "stream": true}'])
@pytest.mark.parametrize("hang_after", [0, 1])
async def test_client_that_vanishes_frees_the_backend(
    running: Rig, edge: FakeEdge, body: bytes, hang_after: int
) -> None:
    edge.script = Script(hang_after=hang_after)
    connection = await send(running, CHAT, JSON, body=body)
    await asyncio.wait_for(edge.seen.hanging.wait(), 5)
    connection.writer.transport.abort()
    await asyncio.wait_for(edge.seen.cancelled.wait(), 5)
    await until(lambda: running.sample("flashgate_requests_in_flight") == 0, "in flight 0")


async def test_client_that_does_not_read_is_given_up(
    running: Rig, edge: FakeEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_listener, "READ_TIMEOUT_S", 0.2)
    edge.script = Script(texts=["x" * 60_000] * 2000)
    connection = await send(running, CHAT, JSON, body=HELLO[:-1] + b', "stream": true}')
    await asyncio.wait_for(edge.seen.cancelled.wait(), 10)
    connection.writer.close()


async def test_stream_is_written_as_the_api_documents_it(running: Rig) -> None:
    connection = await send(running, CHAT, JSON, "connection: close", body=HELLO[:-1] + b', "stream": true}')
    async with asyncio.timeout(10):
        raw = (await connection.reader.read()).decode()
    connection.writer.close()
    head, _, _ = raw.partition("\r\n\r\n")
    assert "content-type: text/event-stream" in head
    assert "cache-control: no-store" in head
    data = [line.removeprefix("data: ") for line in raw.split("\n") if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    assert [json.loads(line)["object"] for line in data[:-1]] == ["chat.completion.chunk"] * 4


async def test_stream_that_breaks_off_ends_with_an_error_and_without_done(running: Rig, edge: FakeEdge) -> None:
    edge.script = Script(break_after=1)
    connection = await send(running, CHAT, JSON, "connection: close", body=HELLO[:-1] + b', "stream": true}')
    async with asyncio.timeout(10):
        raw = (await connection.reader.read()).decode()
    connection.writer.close()
    data = [line.removeprefix("data: ") for line in raw.split("\n") if line.startswith("data: ")]
    assert json.loads(data[-1])["error"]["code"] == "backend_unreachable"
    assert "[DONE]" not in data


async def test_probes_say_what_is_up(running: Rig, edge: FakeEdge) -> None:
    assert await _get(running, "/healthz") == (200, b"ok\n")
    assert await _get(running, "/readyz") == (200, b"edge: ready\n")
    await edge.stop()
    await running.available("edge", expected=False)
    assert await _get(running, "/readyz") == (503, b"edge: unreachable\n")
    assert await _get(running, "/healthz") == (200, b"ok\n")
    running.gateway.is_accepting = False
    assert (await _get(running, "/readyz"))[0] == 503


async def test_metrics_are_exposed(running: Rig) -> None:
    await ask(running, CHAT, JSON, "x-flashgate-tags: phi", body=HELLO)
    status, body = await _get(running, "/metrics")
    assert status == 200
    assert b'flashgate_route_decisions_total{lane="edge",reason="prefers_edge",rule="default"} 1.0' in body
    assert b"gen_ai_server_time_to_first_token_seconds_bucket" in body


async def _get(running: Rig, path: str) -> tuple[int, bytes]:
    connection = await send(running, f"GET {path} HTTP/1.1", "connection: close")
    status, _, body = await connection.response()
    connection.writer.close()
    return status, body
