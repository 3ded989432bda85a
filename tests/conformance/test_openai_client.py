"""The real `openai` package against the gateway: what its users write works, and fails as they expect."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import grpc
import openai
import pytest
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionMessageParam
from openai.types.completion_usage import PromptTokensDetails
from pydantic import BaseModel

from router.gateway.credentials import Credentials
from tests.integration.gateway_fakes import FakeCloud, FakeEdge, Script
from tests.integration.gateway_rig import Rig, prefer, rig

CANARY = "CANARY-4711"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
PHI = {"X-Flashgate-Tags": "phi"}


@asynccontextmanager
async def lanes(
    edge_script: Script | None = None, credentials: Credentials | None = None
) -> AsyncGenerator[tuple[Rig, FakeEdge, FakeCloud], None]:
    """Both lanes up, the rule preferring the cloud."""
    async with (
        FakeEdge(edge_script) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address, policy=prefer("cloud"), credentials=credentials) as running,
    ):
        yield running, edge, cloud


def route(answer: BaseModel) -> dict[str, Any]:
    """Our facts, which the client keeps although it does not know them."""
    assert answer.model_extra is not None
    facts: dict[str, Any] = answer.model_extra["flashgate"]
    return facts


def client(running: Rig, key: str = "none", retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{running.http_url}/v1", api_key=key, max_retries=retries)


async def test_plain_answer() -> None:
    async with lanes() as (running, _, cloud), client(running) as api:
        answer = await api.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=5)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == "Hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage == CompletionUsage(prompt_tokens=7, completion_tokens=2, total_tokens=9)
    assert answer.model == "cloud-model"
    assert route(answer)["lane"] == "cloud"
    assert route(answer)["ttft_ms"] > 0
    assert len(cloud.seen.payloads) == 1


async def test_sync_client() -> None:
    async with lanes() as (running, _, _):

        def ask() -> str | None:
            with openai.OpenAI(base_url=f"{running.http_url}/v1", api_key="none", max_retries=0) as api:
                plain = api.chat.completions.create(model="m", messages=HELLO)
                with api.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
                    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                assert plain.choices[0].message.content == text
                return text

        assert await asyncio.to_thread(ask) == "Hello world"


async def test_usage_says_what_the_device_knew_of_the_prompt() -> None:
    async with lanes() as (running, _, _), client(running) as api:
        answer = await api.chat.completions.create(model="m", messages=HELLO, extra_headers=PHI)
    details = PromptTokensDetails(cached_tokens=3)
    assert answer.usage == CompletionUsage(
        prompt_tokens=7, completion_tokens=2, total_tokens=9, prompt_tokens_details=details
    )


async def test_stream_with_usage_and_route() -> None:
    async with lanes() as (running, _, _), client(running) as api:
        stream = await api.chat.completions.create(
            model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello world"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert route(chunks[-2])["backend"] == "cloud"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == CompletionUsage(prompt_tokens=7, completion_tokens=2, total_tokens=9)
    assert {chunk.id for chunk in chunks} == {f"chatcmpl-{route(chunks[-2])['decision_id']}"}


async def test_stream_without_usage_has_none() -> None:
    async with lanes() as (running, _, _), client(running) as api:
        stream = await api.chat.completions.create(model="m", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("way", ["header", "body"])
@pytest.mark.parametrize("stream", [False, True])
async def test_tags_keep_a_request_on_the_device(way: str, stream: bool) -> None:
    headers = {"X-Flashgate-Tags": "internal, phi"} if way == "header" else {}
    body = {"flashgate": {"privacy_tags": ["phi"], "latency": {"ttft_ms": 60000}}} if way == "body" else {}
    async with lanes() as (running, edge, cloud), client(running) as api:
        raw = await api.chat.completions.with_raw_response.create(
            model="m",
            messages=[{"role": "user", "content": CANARY}],
            stream=stream,
            extra_headers=headers,
            extra_body=body,
        )
        answer = raw.parse()
        if isinstance(answer, openai.AsyncStream):
            await answer.close()
    assert raw.headers["x-flashgate-lane"] == "edge"
    assert raw.headers["x-flashgate-backend"] == "edge"
    assert raw.headers["x-flashgate-model"] == "edge-model"
    assert raw.headers["x-flashgate-rule"] == "default"
    assert raw.headers["x-flashgate-reasons"] == "floor_forbids_cloud,prefers_cloud"
    assert raw.headers["x-flashgate-floor"] == "device"
    assert raw.headers["x-flashgate-policy"].startswith("sha256:")
    assert int(raw.headers["x-flashgate-predicted-ttft-ms"]) >= 0
    assert len(raw.headers["x-flashgate-decision-id"]) == 32
    assert edge.seen.holds(CANARY)
    assert not cloud.seen.holds(CANARY)


async def test_identifier_in_untagged_text_keeps_it_on_the_device() -> None:
    async with lanes() as (running, _, cloud), client(running) as api:
        message: ChatCompletionMessageParam = {"role": "user", "content": "write to ann.lee@example.org for me"}
        answer = await api.chat.completions.create(model="m", messages=[message])
    assert route(answer)["lane"] == "edge"
    assert route(answer)["detections"] == ["email"]
    assert cloud.seen.payloads == []


async def test_unsupported_parameter_is_a_bad_request_that_names_it() -> None:
    async with lanes() as (running, _, _), client(running) as api:
        with pytest.raises(openai.BadRequestError) as caught:
            await api.chat.completions.create(model="m", messages=HELLO, n=2)
    assert caught.value.param == "n"
    assert caught.value.code == "unsupported_parameter"
    assert caught.value.type == "invalid_request_error"


async def test_missing_or_unknown_key_is_an_authentication_error() -> None:
    credentials = Credentials([("clinic", hashlib.sha256(b"right").digest())])
    async with lanes(credentials=credentials) as (running, _, _):
        async with client(running, "wrong") as api:
            with pytest.raises(openai.AuthenticationError, match="not known here") as caught:
                await api.chat.completions.create(model="m", messages=HELLO)
            with pytest.raises(openai.AuthenticationError):
                await api.models.list()
        async with client(running, "right") as api:
            await api.chat.completions.create(model="m", messages=HELLO)
        lines = [line for line in running.log_lines() if line["event"] == "request_ended"]
    assert caught.value.code == "invalid_api_key"
    assert [line["tenant"] for line in lines] == ["clinic"]


async def test_full_edge_is_a_rate_limit_with_a_time_to_wait() -> None:
    async with lanes(Script(error=grpc.StatusCode.RESOURCE_EXHAUSTED)) as (running, _, _), client(running) as api:
        with pytest.raises(openai.RateLimitError) as caught:
            await api.chat.completions.create(model="m", messages=HELLO, extra_headers=PHI)
    assert caught.value.response.headers["retry-after"] == "3"
    assert caught.value.code == "backend_overloaded"


@pytest.mark.parametrize("stream", [False, True])
async def test_private_request_without_its_lane_is_a_server_error(stream: bool) -> None:
    async with lanes(Script(error=grpc.StatusCode.INTERNAL)) as (running, _, cloud), client(running) as api:
        with pytest.raises(openai.InternalServerError) as caught:
            await api.chat.completions.create(model="m", messages=HELLO, stream=stream, extra_headers=PHI)
    assert caught.value.status_code == 503
    assert cloud.seen.payloads == []


async def test_strict_bound_that_no_lane_can_keep_is_refused_without_retries() -> None:
    async with lanes() as (running, edge, _), client(running, retries=2) as api:
        flashgate = {"privacy_tags": ["phi"], "latency": {"ttft_ms": 1, "strict": True}}
        with pytest.raises(openai.APIStatusError) as caught:
            await api.chat.completions.create(model="m", messages=HELLO, extra_body={"flashgate": flashgate})
        refusals = running.sample("flashgate_refusals_total", reason="too_slow_strict")
    assert caught.value.code == "too_slow_strict"
    assert refusals == 1
    assert edge.seen.payloads == []


async def test_stream_that_breaks_off_raises_and_is_not_continued() -> None:
    async with lanes(Script(break_after=1)) as (running, _, cloud), client(running) as api:
        stream = await api.chat.completions.create(model="m", messages=HELLO, stream=True, extra_headers=PHI)
        chunks = aiter(stream)
        assert (await anext(chunks)).choices[0].delta.role == "assistant"
        assert (await anext(chunks)).choices[0].delta.content == "Hello"
        with pytest.raises(openai.APIError, match="backend edge"):
            await anext(chunks)
    assert cloud.seen.payloads == []


async def test_leaving_a_stream_frees_the_backend() -> None:
    async with lanes(Script(hang_after=1)) as (running, edge, _), client(running) as api:
        stream = await api.chat.completions.create(model="m", messages=HELLO, stream=True, extra_headers=PHI)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        await asyncio.wait_for(edge.seen.cancelled.wait(), 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_timeout_before_the_first_text_frees_the_backend(stream: bool) -> None:
    async with lanes(Script(hang_after=0)) as (running, edge, _), client(running) as api:
        with pytest.raises(openai.APITimeoutError):
            await api.chat.completions.create(model="m", messages=HELLO, stream=stream, timeout=0.3, extra_headers=PHI)
        await asyncio.wait_for(edge.seen.cancelled.wait(), 5)


async def test_models_of_both_lanes_are_listed() -> None:
    async with lanes() as (running, _, _), client(running) as api:
        await api.chat.completions.create(model="m", messages=HELLO)
        models = {model.id: route(model)["lane"] async for model in api.models.list()}
    assert models == {"edge-model": "edge", "cloud-model": "cloud"}


async def test_answer_can_be_sent_back_as_history() -> None:
    async with lanes() as (running, _, _), client(running) as api:
        first = await api.chat.completions.create(model="m", messages=HELLO)
        sent_back = cast("ChatCompletionMessageParam", first.choices[0].message.model_dump())
        second = await api.chat.completions.create(model="m", messages=[*HELLO, sent_back, *HELLO])
    assert second.choices[0].message.content == "Hello world"


async def test_fifty_streams_at_once() -> None:
    async with lanes(Script([str(n) for n in range(10)])) as (running, _, _), client(running) as api:

        async def ask() -> str:
            stream = await api.chat.completions.create(model="m", messages=HELLO, stream=True, extra_headers=PHI)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert set(await asyncio.gather(*(ask() for _ in range(50)))) == {"0123456789"}
