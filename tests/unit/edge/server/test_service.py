"""EdgeService on a real gRPC server, with an engine that the test plays."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import structlog
from flashgate.v1 import common_pb2, edge_pb2, edge_pb2_grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from edge.chat_template import ChatTemplate
from edge.errors import CancelledError, EdgeError, StorageError, UnavailableError
from edge.prompt import PromptEncoder
from edge.server import wire
from edge.server.admission import Admission
from edge.server.exchange import Exchange, ServedModel
from edge.server.limits import MAX_MESSAGES, max_prompt_bytes, max_request_bytes
from edge.server.observed import Event, Outcome, RequestEnded
from edge.server.pipe import Worked
from edge.server.rates import Rates
from edge.server.request import Received
from edge.server.service import EdgeService, add_to_server
from edge.tokenizer import Tokenizer
from tests.unit.edge.server.conftest import STATUS, PlayedEngine

Until = Callable[..., Any]
Request = edge_pb2.EdgeServiceGenerateRequest
EOS = 256
CONTEXT = 64


def alphabet_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({token: i for i, token in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    template = ChatTemplate("{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}")
    return Tokenizer(backend, template, frozenset({EOS}))


TOKENIZER = alphabet_tokenizer()


@dataclass
class Served:
    stub: "edge_pb2_grpc.EdgeServiceAsyncStub"
    admission: Admission
    engine: PlayedEngine
    service: EdgeService
    events: list[Event]

    def generate(self, request: Request, timeout_s: float = 20.0) -> Any:
        return self.stub.Generate(request, timeout=timeout_s)

    @property
    def outcomes(self) -> list[Outcome]:
        return [event.outcome for event in self.events if isinstance(event, RequestEnded)]


async def start(engine: PlayedEngine, events: list[Event], tokenizer: Tokenizer | None) -> AsyncIterator[Served]:
    rates = Rates()
    admission = Admission(engine, rates, limit=1)
    encoder = PromptEncoder(tokenizer, vocab_size=300, context_tokens=CONTEXT)
    model = ServedModel("m", CONTEXT, encoder, tokenizer, 4.5)
    service = EdgeService(model, admission, rates, lambda: STATUS, events.append)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", max_request_bytes(CONTEXT))])
    add_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield Served(edge_pb2_grpc.EdgeServiceStub(channel), admission, engine, service, events)
    await server.stop(0)


@pytest.fixture
async def served(played: PlayedEngine, events: list[Event]) -> AsyncIterator[Served]:
    async for served in start(played, events, TOKENIZER):
        yield served


@pytest.fixture
async def served_without_tokenizer(played: PlayedEngine, events: list[Event]) -> AsyncIterator[Served]:
    async for served in start(played, events, None):
        yield served


def text_request(text: str = "hi", **sampling: Any) -> Request:
    return Request(text=text, sampling=common_pb2.Sampling(**sampling))


def details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo | None]:
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # stubs know only the synchronous kind
    assert status is not None
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status.details[0].Unpack(info)
    has_retry = len(status.details) > 1 and status.details[1].Unpack(retry)
    return info, retry if has_retry else None


async def refused(call: Any) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(drain(call), 20)
    info, _ = details(caught.value)
    assert info.domain == "flashgate"
    return caught.value.code(), info.reason, str(caught.value.details())


async def drain(call: Any) -> list[Any]:
    return [response async for response in call]


BAD_REQUESTS = {
    "no prompt": (Request(), "INVALID_REQUEST", "no prompt"),
    "empty text": (Request(text=""), "INVALID_REQUEST", "empty"),
    "no messages": (Request(chat=edge_pb2.ChatPrompt()), "INVALID_REQUEST", "no messages"),
    "no ids": (Request(token_ids=edge_pb2.TokenIds()), "INVALID_REQUEST", "empty"),
    "unknown role": (
        Request(chat=edge_pb2.ChatPrompt(messages=[common_pb2.ChatMessage(role="canary", content="canary")])),
        "INVALID_REQUEST",
        "unknown role",
    ),
    "id beyond the vocabulary": (Request(token_ids=edge_pb2.TokenIds(ids=[300])), "INVALID_REQUEST", "token id 300"),
    "prompt too long": (text_request("a" * 65), "PROMPT_TOO_LONG", "65 tokens: the context holds 64"),
    "prompt too large": (text_request("a" * (max_prompt_bytes(CONTEXT) + 1)), "PROMPT_TOO_LONG", "bytes"),
    "no tokens wanted": (text_request(max_tokens=0), "INVALID_REQUEST", "max_tokens is 0"),
    "temperature": (text_request(temperature=-1), "INVALID_REQUEST", "temperature is -1"),
    "temperature NaN": (text_request(temperature=float("nan")), "INVALID_REQUEST", "temperature is nan"),
    "top_p": (text_request(top_p=0), "INVALID_REQUEST", "top_p is 0"),
    "min_p": (text_request(min_p=1), "INVALID_REQUEST", "min_p is 1"),
    "stop": (text_request(stop=[""]), "INVALID_REQUEST", "stop"),
    "too many stops": (text_request(stop=["canary"] * 17), "INVALID_REQUEST", "stop has 17 texts: at most 16"),
    "too many messages": (
        Request(chat=edge_pb2.ChatPrompt(messages=[common_pb2.ChatMessage()] * (MAX_MESSAGES + 1))),
        "INVALID_REQUEST",
        "chat has 4097 texts: at most 4096",
    ),
    "too many ids": (Request(token_ids=edge_pb2.TokenIds(ids=[1] * 65)), "PROMPT_TOO_LONG", "65 tokens"),
    "tenant": (Request(text="hi", tenant="canary" * 50), "INVALID_REQUEST", "tenant has 300 characters"),
    "request id": (Request(text="hi", request_id="canary\n{}"), "INVALID_REQUEST", "request_id"),
}


@pytest.mark.parametrize(("request_", "reason", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_a_bad_request_is_refused_and_the_value_named(
    served: Served, request_: Request, reason: str, message: str
) -> None:
    code, got, text = await refused(served.generate(request_))
    assert (code, got) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert message in text
    assert "canary" not in text
    assert served.outcomes == [Outcome.REFUSED]
    assert not served.engine.calls


async def test_an_answer_streams_ids_and_text_and_ends_with_figures(served: Served, until: Until) -> None:
    call = served.generate(text_request("hé", max_tokens=3))
    await until(lambda: served.engine.calls)
    served.engine.last.start()
    ids = TOKENIZER.encode("é!")
    for token in ids:
        served.engine.last.token(token, Worked(1, 2, 512, 2))
    served.engine.last.finish("length", Worked(3, 10, 4096, 2, drafted_tokens=5, accepted_tokens=4))
    first, *rest = await drain(call)
    assert first.started == edge_pb2.EdgeStarted(model="m", prompt_tokens=3, weight_bits=4.5)
    tokens = [response.tokens for response in rest[:-1]]
    assert [token for event in tokens for token in event.ids] == ids
    assert "".join(event.text for event in tokens) == "é!"
    finished = rest[-1].finished
    assert finished.finish_reason == common_pb2.FinishReason.FINISH_REASON_LENGTH
    assert finished.usage == common_pb2.Usage(prompt_tokens=3, completion_tokens=3)
    assert (finished.expert_cache_hits, finished.expert_cache_lookups, finished.expert_read_bytes) == (3, 10, 4096)
    assert finished.reused_prompt_tokens == 2
    assert (finished.drafted_tokens, finished.accepted_tokens) == (5, 4)
    queue_s, ttft_s, total_s = (
        getattr(finished.timings, name).ToTimedelta().total_seconds() for name in ("queue", "ttft", "total")
    )
    assert 0 < queue_s <= ttft_s <= total_s


async def test_the_request_id_is_the_callers_or_a_new_one(served: Served, until: Until) -> None:
    with structlog.testing.capture_logs() as logs:
        for request_id in ("abc-1", ""):
            request = text_request()
            request.request_id = request_id
            call = served.generate(request)
            await until(lambda: served.engine.calls)
            metadata = dict(await call.initial_metadata())
            served.engine.last.finish()
            await drain(call)
            served.engine.calls.clear()
            assert metadata["flashgate-request-id"] == (request_id or logs[-1]["request_id"])
    assert [log["event"] for log in logs] == ["request_ended"] * 2


async def test_a_stop_text_ends_the_answer_and_frees_the_engine(served: Served, until: Until) -> None:
    call = served.generate(text_request(stop=["EN"]))
    await until(lambda: served.engine.calls)
    for token in TOKENIZER.encode("a EN"):
        served.engine.last.token(token)
    responses = await drain(call)
    assert "".join(response.tokens.text for response in responses) == "a "
    assert responses[-1].finished.finish_reason == common_pb2.FinishReason.FINISH_REASON_STOP
    assert served.engine.last.is_cancelled
    assert served.outcomes == [Outcome.FINISHED]


async def test_a_stop_text_frees_the_engine_before_a_slow_caller_has_read_the_answer(
    served: Served, until: Until
) -> None:
    call = served.generate(text_request(stop=["EN"]))
    await until(lambda: served.engine.calls)
    for token in TOKENIZER.encode("abc" * 200_000 + "EN"):  # more than fits between the two
        served.engine.last.token(token)
    await until(lambda: served.engine.last.is_cancelled)
    assert served.service.num_active == 1
    responses = await drain(call)
    assert responses[-1].finished.usage.completion_tokens == 600_002


async def test_a_caller_may_leave_once_it_has_read_the_end(
    served: Served, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Exchange.run

    async def run_and_linger(exchange: Exchange, received: Received) -> None:
        await run(exchange, received)
        await asyncio.Event().wait()  # the moment between the last message and the server's own end of the call

    monkeypatch.setattr(Exchange, "run", run_and_linger)
    call = served.generate(text_request())
    await until(lambda: served.engine.calls)
    served.engine.last.finish()
    async for response in call:
        if response.HasField("finished"):
            break
    call.cancel()
    await until(lambda: served.outcomes == [Outcome.FINISHED])


async def test_the_tokenizers_own_end_token_ends_the_answer(served: Served, until: Until) -> None:
    call = served.generate(text_request())
    await until(lambda: served.engine.calls)
    for token in (*TOKENIZER.encode("a"), EOS):
        served.engine.last.token(token)
    responses = await drain(call)
    assert [token for response in responses for token in response.tokens.ids] == TOKENIZER.encode("a")
    assert responses[-1].finished.finish_reason == common_pb2.FinishReason.FINISH_REASON_STOP


async def test_without_a_tokenizer_ids_work_and_text_says_why_not(
    served_without_tokenizer: Served, until: Until
) -> None:
    served = served_without_tokenizer
    code, _, text = await refused(served.generate(text_request()))
    assert (code, "no tokenizer" in text) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    call = served.generate(Request(token_ids=edge_pb2.TokenIds(ids=[1])))
    await until(lambda: served.engine.calls)
    served.engine.last.token(299)
    served.engine.last.finish("stop")
    responses = await drain(call)
    assert [token for response in responses for token in response.tokens.ids] == [299]


async def test_a_full_queue_says_when_to_come_back(served: Served, until: Until) -> None:
    calls = [served.generate(text_request()) for _ in range(2)]
    await until(lambda: served.admission.queue_depth == 2)
    served.engine.last.start()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await drain(served.generate(text_request()))
    info, retry = details(caught.value)
    assert (caught.value.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert retry is not None
    assert retry.retry_delay.seconds == 5
    for call in calls:
        call.cancel()


@pytest.mark.parametrize(
    ("error", "code", "reason", "outcome"),
    [
        (StorageError("layer 3"), grpc.StatusCode.DATA_LOSS, "STORAGE", Outcome.FAILED),
        (UnavailableError("lost", "ENGINE_DIED"), grpc.StatusCode.UNAVAILABLE, "ENGINE_DIED", Outcome.UNAVAILABLE),
        (CancelledError("gone"), grpc.StatusCode.CANCELLED, "CANCELLED", Outcome.CANCELLED),
    ],
)
async def test_an_error_in_mid_stream_ends_it_with_its_status(
    served: Served, until: Until, error: EdgeError, code: grpc.StatusCode, reason: str, outcome: Outcome
) -> None:
    call = served.generate(text_request())
    await until(lambda: served.engine.calls)
    served.engine.last.token(5)
    served.engine.last.fail(error)
    assert (await refused(call))[:2] == (code, reason)
    await until(lambda: served.outcomes == [outcome])


async def test_an_engine_that_is_away_refuses_before_reading_the_prompt(served: Served) -> None:
    served.engine.error = UnavailableError("the engine is restarting", "ENGINE_RESTARTING")
    code, reason, _ = await refused(served.generate(text_request("a" * 65)))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_RESTARTING")


async def test_a_caller_that_leaves_frees_the_engine(served: Served, until: Until) -> None:
    call = served.generate(text_request())
    await until(lambda: served.engine.calls)
    call.cancel()
    await until(lambda: served.engine.last.is_cancelled)
    await until(lambda: served.outcomes == [Outcome.CANCELLED])
    assert served.service.num_active == 0


async def test_a_caller_that_leaves_the_queue_leaves_no_trace(served: Served, until: Until) -> None:
    first = served.generate(text_request())
    await until(lambda: len(served.engine.calls) == 1)  # or the second might overtake it
    served.engine.last.start()
    second = served.generate(text_request())
    await until(lambda: served.admission.queue_depth == 1)
    second.cancel()
    await until(lambda: served.admission.queue_depth == 0)
    assert len(served.engine.calls) == 1
    first.cancel()


async def test_a_deadline_ends_a_running_and_a_queued_request(served: Served, until: Until) -> None:
    calls = [served.generate(text_request(), timeout_s=0.3) for _ in range(2)]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await drain(call)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: served.outcomes == [Outcome.DEADLINE] * 2)
    assert served.engine.last.is_cancelled
    assert served.admission.queue_depth == 0


async def test_a_slow_reader_does_not_hold_the_engine(served: Served, until: Until) -> None:
    slow = served.generate(text_request())
    await until(lambda: served.engine.calls)
    for token in TOKENIZER.encode("abc" * 2000):
        served.engine.last.token(token)
    served.engine.last.finish()
    quick = served.generate(text_request())
    await until(lambda: len(served.engine.calls) == 2)
    served.engine.last.finish()
    assert (await drain(quick))[-1].HasField("finished")
    assert "".join(response.tokens.text for response in await drain(slow)) == "abc" * 2000


async def test_an_unforeseen_error_is_internal_and_quotes_nothing(
    served: Served, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise ValueError("canary")

    monkeypatch.setattr(wire, "tokens", fail)
    with structlog.testing.capture_logs() as logs:
        call = served.generate(text_request("canary"))
        await until(lambda: served.engine.calls)
        served.engine.last.token(5)
        code, reason, text = await refused(call)
    assert (code, reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "request_broke" in [log["event"] for log in logs]
    assert "canary" not in text + json.dumps(logs, default=str)


async def test_the_status_is_passed_on(served: Served) -> None:
    got = await served.stub.GetStatus(edge_pb2.EdgeServiceGetStatusRequest())
    assert got == edge_pb2.EdgeServiceGetStatusResponse(
        model="m",
        engine_state=edge_pb2.EngineState.ENGINE_STATE_READY,
        context_tokens=64,
        queue_depth=1,
        queue_limit=2,
        running=3,
        running_limit=4,
        steps_until_place=5,
        pending_prompt_tokens=6,
        pending_completion_tokens=7,
        prefill_tokens_per_second=5.5,
        prompt_base=Duration(nanos=250_000_000),
        decode_tokens_per_second=6.5,
        total_decode_tokens_per_second=13.5,
        batch_size=2.5,
        prompt_bytes_per_token=7.5,
        prompt_reuse_rate=0.75,
        expert_cache_hit_rate=0.5,
        disk_read_bytes_per_second=8.5,
        memory_bytes=9,
        memory_budget_bytes=10,
        temperature_celsius=41.5,
        battery_fraction=0.5,
        on_battery=True,
        uptime=Duration(seconds=11, nanos=500_000_000),
        engine_restarts=12,
        weight_bits=4.5,
        deviations=common_pb2.Deviations(
            experts_per_token=13,
            own_experts_per_token=14,
            substitute=0.375,
            chosen_experts=15 * 13,
            substituted_experts=16,
            router_weight_kept=14.5 / 15,
        ),
    )
