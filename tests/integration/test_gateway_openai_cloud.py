"""The cloud lane over the OpenAI API: the exact bytes that leave, and clouds that misbehave."""

import asyncio
import json

import grpc
import pytest
from flashgate.v1 import common_pb2

from router.backends.cloud_openai import ApiKey, check_base_url
from router.errors import ConfigError
from tests.integration.gateway_fakes import FakeCloud, FakeEdge, FakeHttp, chunk, http, sse, until
from tests.integration.gateway_rig import collect, prefer, request, rig

KEY = "sk-SECRET-KEY"
CANARY = "CANARY-4711"
MODELS = http("200 OK", json.dumps({"data": [{"id": "gpt-fake"}, {"id": "other"}]}).encode())
ANSWER = sse(
    chunk("Hello"),
    chunk(" cloud"),
    chunk(None, "stop"),
    {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}},
)


def cloud_that_says(answer: bytes) -> FakeHttp:
    return FakeHttp(lambda request: MODELS if request.startswith(b"GET") else answer)


def head_and_body(raw: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}, body


async def test_only_what_was_permitted_leaves() -> None:
    async with (
        cloud_that_says(ANSWER) as cloud,
        rig(openai=cloud.url, key=KEY, policy=prefer("cloud")) as running,
    ):
        sampling = common_pb2.Sampling(max_tokens=5, temperature=0.5, top_k=3, stop=["end"])
        answer = await collect(running, request("höllo", "public", sampling=sampling))
        outputs = running.exposition() + running.log.getvalue()
    headers, body = head_and_body(cloud.chats[0])
    assert json.loads(body) == {
        "model": "gpt-fake",
        "messages": [{"role": "user", "content": "höllo"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "temperature": 0.5,
        "top_k": 3,
        "stop": ["end"],
    }
    assert set(headers) == {
        "host",
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
    }
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["user-agent"] == "flashgate"
    assert answer.text == "Hello cloud"
    assert answer.decision.model == "gpt-fake"
    assert answer.completion.usage == common_pb2.Usage(prompt_tokens=4, completion_tokens=2)
    assert KEY not in outputs


async def test_private_request_never_reaches_it() -> None:
    async with (
        FakeEdge() as edge,
        cloud_that_says(ANSWER) as cloud,
        rig(edge=edge.address, openai=cloud.url, policy=prefer("cloud")) as running,
    ):
        await collect(running, request(CANARY, "phi"))
        await edge.stop()
        await running.available("edge", expected=False)
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(running, request(CANARY, "phi"))
    assert cloud.chats == []


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (http("401 Unauthorized", b"{}"), "unauthorized"),
        (http("404 Not Found", b"nothing"), "failed"),
        (http("429 Too Many Requests", b'{"error": {"code": "insufficient_quota"}}'), "overloaded"),
        (http("500 Oops", b"<html>"), "failed"),
        (http("503 Busy", b""), "unreachable"),
        (http("302 Found", b"", "text/html", "location: http://127.0.0.1:1/steal"), "broken"),
        (http("200 OK", b'{"choices": []}'), "broken"),
        (sse({"error": {"message": CANARY}}), "broken"),
        (sse("not an object"), "broken"),
        (sse(chunk(None, "content_filter")), "broken"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n", "broken"),
        (b"nonsense\r\n\r\nconnection: close", "broken"),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", "broken"),
        (http("413 Too Long", b"{}"), "prompt_too_long"),
    ],
)
async def test_cloud_that_misbehaves_is_replaced_before_the_first_text(answer: bytes, cause: str) -> None:
    async with (
        FakeEdge() as edge,
        cloud_that_says(answer) as cloud,
        rig(edge=edge.address, openai=cloud.url, policy=prefer("cloud")) as running,
    ):
        collected = await collect(running, request("hello", "public"))
        assert CANARY not in running.log.getvalue()
    assert collected.decision.fallbacks == [f"cloud: {cause}"]
    assert collected.text == "Hello world"
    assert len(cloud.chats) == 1


async def test_error_is_named_by_its_code_and_its_words_are_not_repeated() -> None:
    error = {"error": {"message": f"you said {CANARY}", "code": "context_length_exceeded"}}
    answer = http("400 Bad Request", json.dumps(error).encode())
    async with cloud_that_says(answer) as cloud, rig(openai=cloud.url, policy=prefer("cloud")) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(running, request("hello", "public"))
        assert CANARY not in running.log.getvalue()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "context_length_exceeded" in (caught.value.details() or "")
    assert CANARY not in (caught.value.details() or "")


async def test_caller_that_leaves_closes_the_connection_to_the_cloud() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = f"data: {json.dumps(chunk('Hello'))}\n\n".encode()
    answer = head + f"{len(event):x}\r\n".encode() + event + b"\r\n"
    async with cloud_that_says(answer) as cloud, rig(openai=cloud.url, policy=prefer("cloud")) as running:
        call = running.stub.Generate(request("hello", "public"))
        events = aiter(call)
        assert (await anext(events)).HasField("decision")
        call.cancel()
        await asyncio.wait_for(cloud.left.wait(), 5)


async def test_cookies_are_not_kept() -> None:
    answer = ANSWER.replace(b"connection: close", b"set-cookie: track=1; Path=/\r\nconnection: close", 1)
    async with cloud_that_says(answer) as cloud, rig(openai=cloud.url, policy=prefer("cloud")) as running:
        for _ in range(2):
            await collect(running, request("hello", "public"))
    assert len(cloud.chats) == 2
    assert not any(b"cookie" in chat.lower() for chat in cloud.chats)


async def test_wrong_key_is_seen_without_a_request() -> None:
    async with (
        FakeHttp(lambda _: http("401 Unauthorized", b"{}")) as cloud,
        rig(openai=cloud.url, key=KEY, wait=False) as running,
    ):
        await until(lambda: running.states["cloud"].cause == "unauthorized", "the key's refusal")
        assert not running.states["cloud"].available


async def test_nothing_goes_to_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeHttp(lambda _: http("200 OK", b"")) as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
            for variable in (name, name.upper()):
                monkeypatch.setenv(variable, proxy.url.removesuffix("/v1"))
        for variable in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(variable, raising=False)
        async with (
            FakeEdge() as edge,
            FakeCloud() as grpc_cloud,
            cloud_that_says(ANSWER) as http_cloud,
            rig(openai=http_cloud.url, policy=prefer("cloud")) as over_http,
            rig(edge=edge.address, cloud=grpc_cloud.address, policy=prefer("cloud")) as over_grpc,
        ):
            await collect(over_http, request(CANARY, "public"))
            await collect(over_grpc, request(CANARY, "public"))
            await collect(over_grpc, request(CANARY, "phi"))
    assert proxy.requests == []


@pytest.mark.parametrize(
    "url",
    ["", "api.openai.com/v1", "ftp://x/v1", "https://", "https://u:p@x/v1", "https://x/v1?key=1", "https://x/v1#a"],
)
def test_base_url_that_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--cloud-openai"):
        check_base_url(url)


@pytest.mark.parametrize("value", ["sk-1\n", " sk-1", "sk-\u00fc", "a\r\nb: c"])
def test_key_that_no_header_can_carry_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ApiKey(value)
    assert value not in str(caught.value)


def test_key_does_not_show_itself() -> None:
    assert KEY not in f"{ApiKey(KEY)!r} {ApiKey(KEY)}"
