"""Both lanes through the gateway, over gRPC: decisions, fallback, what never leaves."""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import grpc
import pytest
from flashgate.v1 import cloud_pb2, common_pb2, edge_pb2, gateway_pb2
from google.rpc import error_details_pb2, status_pb2

from router.backends import edge_grpc
from router.decide import Plan, Refusal, decide
from router.gateway import use_case
from router.gateway.use_case import INLINE_SCAN_BYTES
from router.privacy.reach import Reach
from router.request import GenerationRequest
from router.resilience.attempts import Limits
from router.resilience.circuit import CircuitLimits
from tests.integration.gateway_fakes import FakeCloud, FakeEdge, Script, until
from tests.integration.gateway_rig import Rig, collect, prefer, request, rig

CANARY = "CANARY-4711"
Code = grpc.StatusCode


async def failure(running: Rig, message: gateway_pb2.GenerateRequest, timeout_s: float = 20) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(running, message, timeout_s)
    return caught.value


def details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, float | None]:
    """The ErrorInfo and the seconds of the RetryInfo."""
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status.ParseFromString(value)
    info, retry, retry_s = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), None
    for detail in status.details:
        detail.Unpack(info)
        if detail.Unpack(retry):
            retry_s = retry.retry_delay.ToTimedelta().total_seconds()
    assert info.domain == "flashgate"
    return info, retry_s


async def test_private_request_stays_although_the_rule_prefers_the_cloud() -> None:
    async with (
        FakeEdge() as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address, policy=prefer("cloud")) as running,
    ):
        answer = await collect(running, request(CANARY, "PHI "))
        denied = running.sample("flashgate_egress_denied_total", floor="device", cause="floor_forbids_cloud")
        outputs = running.exposition() + running.log.getvalue()
    assert answer.text == "Hello world"
    assert answer.decision.lane == gateway_pb2.LANE_EDGE
    assert answer.decision.backend == "edge"
    assert answer.decision.model == "edge-model"
    assert answer.decision.floor == common_pb2.REACH_DEVICE
    assert answer.decision.floor_steps[0] == "tag phi: device"
    assert answer.decision.reasons[0] == "floor_forbids_cloud"
    assert answer.decision.policy_hash.startswith("sha256:")
    assert answer.decision.HasField("predicted_ttft")
    assert answer.completion.usage == common_pb2.Usage(prompt_tokens=7, completion_tokens=2)
    assert answer.completion.timings.ttft.ToNanoseconds() > 0
    assert edge.seen.holds(CANARY)
    assert cloud.seen.payloads == []
    assert denied == 1
    assert CANARY not in outputs


async def test_public_request_goes_where_the_rule_says() -> None:
    async with (
        FakeEdge() as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address, policy=prefer("cloud")) as running,
    ):
        answer = await collect(running, request(CANARY, "public"))
        decided = running.sample(
            "flashgate_route_decisions_total", lane="cloud", rule="default", reason="prefers_cloud"
        )
        ttft = running.sample("gen_ai_server_time_to_first_token_seconds_count", lane="cloud", model="cloud-model")
    assert answer.decision.lane == gateway_pb2.LANE_CLOUD
    assert answer.decision.model == "cloud-model"
    assert edge.seen.payloads == []
    assert (decided, ttft) == (1, 1)


async def test_cloud_learns_nothing_about_the_caller() -> None:
    async with FakeCloud() as cloud, rig(cloud=cloud.address, policy=prefer("cloud")) as running:
        sampling = common_pb2.Sampling(max_tokens=5, temperature=0.5, stop=["end"])
        latency = gateway_pb2.LatencyTolerance(latency_class=gateway_pb2.LATENCY_CLASS_BATCH)
        answer = await collect(running, request("hello", "public", sampling=sampling, latency=latency))
    seen = cloud_pb2.CloudServiceGenerateRequest.FromString(cloud.seen.payloads[0])
    assert len(seen.request_id) == 32
    assert seen.request_id != answer.decision.decision_id
    seen.request_id = ""
    message = common_pb2.ChatMessage(role="user", content="hello")
    assert seen == cloud_pb2.CloudServiceGenerateRequest(messages=[message], sampling=sampling)
    # No deadline either: it would say how long the caller waits.
    assert {key for key, _ in cloud.seen.metadata[0]} == {"user-agent"}


async def test_edge_gets_the_decision_id_so_that_one_id_runs_through_all_logs() -> None:
    async with FakeEdge() as edge, rig(edge=edge.address) as running:
        answer = await collect(running, request())
        lines = running.log_lines()
    seen = edge_pb2.EdgeServiceGenerateRequest.FromString(edge.seen.payloads[0])
    assert seen.request_id == answer.decision.decision_id
    assert [line["decision_id"] for line in lines if line["event"] == "request_ended"] == [seen.request_id]


async def test_broken_detector_keeps_everything_on_the_device() -> None:
    def broken(_request: GenerationRequest) -> Mapping[str, int]:
        raise RuntimeError(CANARY)

    async with (
        FakeEdge() as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address, policy=prefer("cloud"), detect=broken) as running,
    ):
        answer = await collect(running, request("hello", "public"))
        assert CANARY not in running.log.getvalue()
    assert "detector failed: device" in answer.decision.floor_steps
    assert answer.decision.backend == "edge"
    assert cloud.seen.payloads == []


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL, Code.RESOURCE_EXHAUSTED, Code.UNAUTHENTICATED])
async def test_lane_that_fails_before_the_first_text_is_replaced_inside_the_floor(code: grpc.StatusCode) -> None:
    async with (
        FakeEdge(Script(error=code)) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address) as running,
    ):
        answer = await collect(running, request("hello", "public"))
        cause = answer.decision.fallbacks[0].partition(": ")[2]
        fallbacks = running.sample("flashgate_fallbacks_total", **{"from": "edge", "cause": cause})
    assert answer.decision.backend == "cloud"
    assert answer.decision.reasons[0] == "fallback"
    assert f"edge_{cause}" in answer.decision.reasons
    assert fallbacks == 1
    assert len(edge.seen.payloads) == len(cloud.seen.payloads) == 1


@pytest.mark.parametrize(
    ("code", "expected", "reason"),
    [
        (Code.UNAVAILABLE, Code.UNAVAILABLE, "BACKEND_UNREACHABLE"),
        (Code.INTERNAL, Code.UNAVAILABLE, "BACKEND_FAILED"),
        (Code.RESOURCE_EXHAUSTED, Code.RESOURCE_EXHAUSTED, "BACKEND_OVERLOADED"),
    ],
)
async def test_private_request_fails_rather_than_leaves(
    code: grpc.StatusCode, expected: grpc.StatusCode, reason: str
) -> None:
    async with (
        FakeEdge(Script(error=code)) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address) as running,
    ):
        error = await failure(running, request(CANARY, "phi"))
        assert CANARY not in running.log.getvalue() + running.exposition()
    info, retry_s = details(error)
    assert (error.code(), info.reason) == (expected, reason)
    assert retry_s == 3
    # What the server said of the request is not passed on.
    assert "CANARY" not in (error.details() or "")
    assert cloud.seen.payloads == []


async def test_prompt_too_long_for_the_edge_may_go_to_the_cloud_and_says_so() -> None:
    script = Script(error=Code.INVALID_ARGUMENT, error_reason="PROMPT_TOO_LONG")
    async with (
        FakeEdge(script) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address) as running,
    ):
        answer = await collect(running, request("hello", "public"))
        error = await failure(running, request("hello", "phi"))
    assert answer.decision.backend == "cloud"
    assert "edge_prompt_too_long" in answer.decision.reasons
    assert error.code() is Code.INVALID_ARGUMENT
    assert details(error)[0].reason == "CONTEXT_LENGTH_EXCEEDED"
    assert "context of 4096 tokens" in (error.details() or "")
    assert len(cloud.seen.payloads) == 1


async def test_request_at_fault_is_not_tried_elsewhere() -> None:
    script = Script(error=Code.INVALID_ARGUMENT, error_reason="BAD_STOP")
    async with (
        FakeEdge(script) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address) as running,
    ):
        error = await failure(running, request("hello", "public"))
    assert error.code() is Code.INVALID_ARGUMENT
    assert "BAD_STOP" in (error.details() or "")
    assert cloud.seen.payloads == []


async def test_answer_that_breaks_off_is_never_continued_by_another_lane() -> None:
    async with (
        FakeEdge(Script(break_after=1)) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address) as running,
    ):
        call = running.stub.Generate(request("hello", "public"))
        events = aiter(call)
        assert (await anext(events)).decision.backend == "edge"
        assert (await anext(events)).delta.text == "Hello"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(events)
        duration = running.sample(
            "gen_ai_server_request_duration_seconds_count",
            lane="edge",
            model="edge-model",
            error_type="backend_unreachable",
        )
    assert caught.value.code() is Code.UNAVAILABLE
    assert cloud.seen.payloads == []
    assert duration == 1


async def test_caller_that_leaves_frees_the_backend_at_once() -> None:
    async with FakeEdge(Script(hang_after=1)) as edge, rig(edge=edge.address) as running:
        call = running.stub.Generate(request())
        events = aiter(call)
        assert (await anext(events)).HasField("decision")
        assert (await anext(events)).delta.text == "Hello"
        call.cancel()
        await asyncio.wait_for(edge.seen.cancelled.wait(), 5)
        await until(lambda: running.sample("flashgate_requests_in_flight") == 0, "in flight 0")
        assert running.log_lines()[-1]["outcome"] == "cancelled"


@pytest.mark.parametrize("hang_after", [0, 1])
async def test_callers_deadline_wins_and_frees_the_backend(hang_after: int) -> None:
    async with (
        FakeEdge(Script(hang_after=hang_after)) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address) as running,
    ):
        error = await failure(running, request("hello", "public"), timeout_s=0.5)
        await asyncio.wait_for(edge.seen.cancelled.wait(), 5)
    assert error.code() is Code.DEADLINE_EXCEEDED
    # Ours, a moment before the client's own.
    assert details(error)[0].reason == "DEADLINE_EXCEEDED"
    assert cloud.seen.payloads == []


async def test_backend_that_says_nothing_is_given_up_for_another() -> None:
    limits = Limits(first_text_s=0.2, edge_first_text_factor=0)
    async with (
        FakeEdge(Script(hang_after=0)) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address, limits=limits) as running,
    ):
        answer = await collect(running, request("hello", "public"))
        await asyncio.wait_for(edge.seen.cancelled.wait(), 5)
    assert answer.decision.fallbacks == ["edge: timed_out"]


async def test_backend_that_stalls_in_the_middle_ends_the_answer() -> None:
    async with FakeEdge(Script(hang_after=1)) as edge, rig(edge=edge.address, limits=Limits(stall_s=0.2)) as running:
        error = await failure(running, request())
    assert details(error)[0].reason == "BACKEND_TIMED_OUT"


async def test_stream_without_an_end_is_no_answer() -> None:
    class Endless(FakeEdge):
        def end(self, num_texts: int) -> bytes:
            return self.text("!")

    async with Endless() as edge, rig(edge=edge.address) as running:
        error = await failure(running, request())
    assert details(error)[0].reason == "BACKEND_BROKEN"


async def test_vanished_edge_is_seen_and_found_again() -> None:
    async with FakeEdge() as edge, FakeCloud() as cloud, rig(edge=edge.address, cloud=cloud.address) as running:
        await edge.stop()
        await running.available("edge", expected=False)
        error = await failure(running, request(CANARY, "phi"))
        public = await collect(running, request("hello", "public"))
        assert running.sample("flashgate_backend_available", backend="edge", lane="edge") == 0
        await edge.start(edge.address)
        await running.available("edge")
        again = await collect(running, request("hello", "phi"))
    assert (error.code(), details(error)[0].reason) == (Code.UNAVAILABLE, "NO_BACKEND_WITHIN_FLOOR")
    assert details(error)[1] is not None
    assert public.decision.backend == "cloud"
    assert "edge_down" in public.decision.reasons
    assert again.decision.backend == "edge"
    assert not cloud.seen.holds(CANARY)


async def test_edge_whose_engine_is_not_ready_gets_no_request() -> None:
    edge = FakeEdge(engine_state=edge_pb2.ENGINE_STATE_RESTARTING, engine_error=CANARY)
    async with edge, rig(edge=edge.address, wait=False) as running:
        await until(lambda: running.states["edge"].cause != "not asked yet", "a first look")
        error = await failure(running, request())
        assert running.states["edge"].cause == "the engine died and is being restarted"
    assert error.code() is Code.UNAVAILABLE
    assert edge.seen.payloads == []


async def test_backend_that_keeps_failing_is_left_alone() -> None:
    limits = Limits(circuit=CircuitLimits(failures_to_open=2, open_s=1000))
    async with (
        FakeEdge(Script(error=Code.INTERNAL)) as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address, limits=limits) as running,
    ):
        answers = [await collect(running, request("hello", "public")) for _ in range(4)]
    assert len(edge.seen.payloads) == 2
    assert [len(answer.decision.fallbacks) for answer in answers] == [1, 1, 0, 0]
    assert "edge_down" in answers[3].decision.reasons


async def test_fifty_callers_at_once_get_whole_answers() -> None:
    texts = [str(number) for number in range(20)]
    async with (
        FakeEdge(Script(texts)) as edge,
        FakeCloud(Script(texts)) as cloud,
        rig(edge=edge.address, cloud=cloud.address, policy=prefer("cloud")) as running,
    ):
        tags = ["phi" if number % 2 else "public" for number in range(50)]
        answers = await asyncio.gather(*(collect(running, request(f"{CANARY} {tag}", tag)) for tag in tags))
    assert {answer.text for answer in answers} == {"".join(texts)}
    assert [answer.decision.backend for answer in answers] == ["edge" if tag == "phi" else "cloud" for tag in tags]
    assert len({answer.decision.decision_id for answer in answers}) == 50
    assert not cloud.seen.holds(f"{CANARY} phi")


async def test_unexpected_error_says_nothing_of_itself_and_is_logged_without_content() -> None:
    async with FakeEdge() as edge, rig(edge=edge.address) as running:
        running.policy.current = None  # type: ignore[assignment]  # a bug of ours, as any
        error = await failure(running, request(CANARY))
        lines = running.log_lines()
    assert (error.code(), details(error)[0].reason) == (Code.INTERNAL, "INTERNAL")
    assert [line["error"] for line in lines if line["event"] == "grpc_request_failed"] == ["AttributeError"]
    assert CANARY not in str(lines)


async def test_long_request_does_not_hold_up_the_others() -> None:
    """Its scan takes long; another request is answered meanwhile."""
    release = threading.Event()

    def slow(message: GenerationRequest) -> Mapping[str, int]:
        if len(message.messages[0].content) > INLINE_SCAN_BYTES:
            release.wait(10)
        return {}

    async with FakeEdge() as edge, rig(edge=edge.address, detect=slow) as running:
        long = asyncio.create_task(collect(running, request("x" * (INLINE_SCAN_BYTES + 1))))
        await until(lambda: running.sample("flashgate_requests_in_flight") == 1, "the long request")
        short = await collect(running, request("short"))
        assert not long.done()
        release.set()
        assert (await long).text == short.text


async def test_edge_too_busy_to_tell_its_state_is_given_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Busy(FakeEdge):
        is_busy = False

        async def _get_status(self, payload: bytes, context: object) -> bytes:
            if self.is_busy:
                self.num_polls += 1
                await asyncio.Event().wait()
            return await super()._get_status(payload, context)

    monkeypatch.setattr(edge_grpc, "POLL_INTERVAL_S", 0.01)
    async with Busy() as edge, rig(edge=edge.address) as running:
        monkeypatch.setattr(edge_grpc, "POLL_TIMEOUT_S", 0.1)
        edge.is_busy, edge.num_polls = True, 0
        await until(lambda: edge.num_polls == edge_grpc.MISSES_ALLOWED, "the misses allowed")
        assert running.states["edge"].available
        await running.available("edge", expected=False)
        assert running.states["edge"].cause == "timed_out"
        assert edge.num_polls > edge_grpc.MISSES_ALLOWED


async def test_plan_that_forgets_the_floor_is_stopped_by_the_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the decision, made on purpose: it offers the cloud although the floor forbids it."""

    def careless(*arguments: Any) -> Plan | Refusal:
        plan = decide(*arguments)
        assert isinstance(plan, Plan)
        cloud = replace(plan.candidates[0], backend="cloud", lane="cloud", reach=Reach.DEVICE)
        return replace(plan, candidates=(cloud,))

    monkeypatch.setattr(use_case, "decide", careless)
    async with FakeEdge() as edge, FakeCloud() as cloud, rig(edge=edge.address, cloud=cloud.address) as running:
        error = await failure(running, request(CANARY, "phi"))
        denied = running.sample("flashgate_egress_denied_total", floor="device", cause="floor")
        events = [line["event"] for line in running.log_lines()]
    assert (error.code(), details(error)[0].reason) == (Code.INTERNAL, "EGRESS_DENIED")
    assert cloud.seen.payloads == []
    assert denied == 1
    assert "egress_denied" in events


async def test_cloud_without_health_counts_as_there() -> None:
    class Plain(FakeCloud):
        async def add_more(self, server: grpc.aio.Server) -> None:
            """No health."""

    async with Plain() as cloud, rig(cloud=cloud.address, policy=prefer("cloud")) as running:
        assert (await collect(running, request("hello", "public"))).decision.backend == "cloud"
