"""GatewayService itself: what it refuses, explains and tells."""

import hashlib
from collections.abc import AsyncGenerator, Awaitable
from typing import cast

import grpc
import pytest
from flashgate.v1 import common_pb2, edge_pb2, gateway_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from router.gateway import wire
from router.gateway.credentials import Credentials
from router.gateway.parameter import ParameterError
from tests.integration.gateway_fakes import FakeCloud, FakeEdge
from tests.integration.gateway_rig import Rig, collect, prefer, request, rig

CANARY = "CANARY-4711"
# A value that only a newer client knows.
NEWER = cast("gateway_pb2.LatencyClass.ValueType", 9)


@pytest.fixture
async def edge() -> AsyncGenerator[FakeEdge, None]:
    async with FakeEdge() as fake:
        yield fake


@pytest.fixture
async def running(edge: FakeEdge) -> AsyncGenerator[Rig, None]:
    async with rig(edge=edge.address) as started:
        yield started


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    info, status = error_details_pb2.ErrorInfo(), status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status.ParseFromString(value)
    status.details[0].Unpack(info)
    return info


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        (gateway_pb2.GenerateRequest(), "messages"),
        (request(" "), "messages"),
        (
            gateway_pb2.GenerateRequest(messages=[common_pb2.ChatMessage(role="bot", content=CANARY)]),
            "messages[0].role",
        ),
        (request("x" * (4 << 20) + "x"), "messages"),
        (request("x", *["tag"] * 33), "privacy_tags"),
        (request("x", ""), "privacy_tags"),
        (request("x", sampling=common_pb2.Sampling(max_tokens=0)), "max_tokens"),
        (request("x", sampling=common_pb2.Sampling(temperature=float("nan"))), "temperature"),
        (request("x", sampling=common_pb2.Sampling(top_p=0)), "top_p"),
        (request("x", sampling=common_pb2.Sampling(stop=[""])), "stop"),
        (request("x", latency=gateway_pb2.LatencyTolerance(ttft=Duration(seconds=-1))), "latency.ttft"),
        (request("x", latency=gateway_pb2.LatencyTolerance(latency_class=NEWER)), "latency.latency_class"),
        (request("x", max_reach=9), "max_reach"),
        (request("x", min_capability=CANARY), "min_capability"),
    ],
)
async def test_bad_request_is_refused_by_parameter(
    running: Rig, edge: FakeEdge, message: gateway_pb2.GenerateRequest, parameter: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(running, message)
    with pytest.raises(grpc.aio.AioRpcError) as explained:
        await running.stub.Explain(gateway_pb2.ExplainRequest(request=message))
    for error in (caught.value, explained.value):
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_info(error).metadata["parameter"] == parameter
        assert CANARY not in (error.details() or "")
    assert edge.seen.payloads == []


@pytest.mark.parametrize("key", ["x-flashgate-tags", "x_flashgate_tags", "x-flashgate-max-reach"])
async def test_tag_in_metadata_is_refused_rather_than_lost(running: Rig, edge: FakeEdge, key: str) -> None:
    metadata = ((key, "phi"),)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(running.stub.Generate(request("hello"), metadata=metadata)))
    with pytest.raises(grpc.aio.AioRpcError) as explained:
        await running.stub.Explain(gateway_pb2.ExplainRequest(request=request("hello")), metadata=metadata)
    for error in (caught.value, explained.value):
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error_info(error).metadata["parameter"] == key
    assert edge.seen.payloads == []


NEWER_FIELD, TAGS_AS_A_NUMBER = b"\x38\x01", b"\x18\x05"
SAMPLING_WITH_A_NEWER_FIELD = b"\x12\x02\x78\x01"


@pytest.mark.parametrize("field", [NEWER_FIELD, TAGS_AS_A_NUMBER, SAMPLING_WITH_A_NEWER_FIELD])
def test_field_that_is_not_known_is_refused_rather_than_lost(field: bytes) -> None:
    message = gateway_pb2.GenerateRequest.FromString(request("hello").SerializeToString() + field)
    with pytest.raises(ParameterError, match="a field that is not known here"):
        wire.request(message, "default")


def test_very_many_messages_are_refused_before_they_are_converted() -> None:
    with pytest.raises(ParameterError, match="has 100000 messages; at most 1024"):
        wire.request(gateway_pb2.GenerateRequest.FromString(b"\x0a\x00" * 100_000), "default")


@pytest.mark.parametrize("method", ["Generate", "Explain", "ListModels", "GetStatus"])
async def test_bytes_that_are_no_message_are_refused(running: Rig, method: str) -> None:
    async with grpc.aio.insecure_channel(running.grpc_address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        # On the wire a method with one answer and one with many begin alike.
        start: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            f"/flashgate.v1.GatewayService/{method}"
        )
        call = start(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error_info(caught.value).reason == "MALFORMED"


async def test_explain_says_what_would_happen_and_sends_nothing() -> None:
    async with (
        FakeEdge() as edge,
        FakeCloud() as cloud,
        rig(edge=edge.address, cloud=cloud.address, policy=prefer("cloud")) as running,
    ):
        private = await running.stub.Explain(gateway_pb2.ExplainRequest(request=request(CANARY, "phi")))
        public = await running.stub.Explain(gateway_pb2.ExplainRequest(request=request("hello", "public")))
        await edge.stop()
        await running.available("edge", expected=False)
        refused = await running.stub.Explain(gateway_pb2.ExplainRequest(request=request("hello", "phi")))
    assert private.decision.backend == "edge"
    assert private.decision.HasField("predicted_ttft")
    assert [(trace.backend, trace.allowed, trace.reason) for trace in private.backends] == [
        ("edge", True, "floor_forbids_cloud"),
        ("cloud", False, "floor_forbids_cloud"),
    ]
    assert public.decision.backend == "cloud"
    assert [trace.backend for trace in public.backends] == ["cloud", "edge"]
    assert not refused.HasField("decision")
    assert refused.refusal.startswith("no_backend_within_floor: ")
    assert CANARY not in str(private)
    assert edge.seen.payloads == cloud.seen.payloads == []


async def test_status_and_models_tell_both_lanes() -> None:
    async with FakeEdge(queue_depth=2) as edge, rig(edge=edge.address, cloud="127.0.0.1:1", wait=False) as running:
        await running.available("edge")
        status = await running.stub.GetStatus(gateway_pb2.GetStatusRequest())
        models = await running.stub.ListModels(gateway_pb2.ListModelsRequest())
    assert status.policy_hash.startswith("sha256:")
    assert [(state.backend, state.available, state.cause) for state in status.backends] == [
        ("edge", True, ""),
        ("cloud", False, "unreachable"),
    ]
    assert status.backends[0].queue_depth == 2
    assert status.backends[0].reach == common_pb2.REACH_DEVICE
    assert [(model.id, model.lane) for model in models.models] == [("edge-model", gateway_pb2.LANE_EDGE)]


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),), (("authorization", "right"),)])
async def test_key_is_asked_for_everywhere(edge: FakeEdge, metadata: tuple[tuple[str, str], ...]) -> None:
    credentials = Credentials([("clinic", hashlib.sha256(b"right").digest())])
    async with rig(edge=edge.address, credentials=credentials) as running:
        calls: list[Awaitable[object]] = [
            running.stub.Explain(gateway_pb2.ExplainRequest(request=request()), metadata=metadata),
            running.stub.ListModels(gateway_pb2.ListModelsRequest(), metadata=metadata),
            running.stub.GetStatus(gateway_pb2.GetStatusRequest(), metadata=metadata),
            running.stub.Generate(request(), metadata=metadata).read(),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "right" not in (caught.value.details() or "")
        right = (("authorization", "Bearer right"),)
        await running.stub.GetStatus(gateway_pb2.GetStatusRequest(), metadata=right)
    assert edge.seen.payloads == []


async def test_an_edge_is_told_whose_request_it_is(edge: FakeEdge) -> None:
    credentials = Credentials([("clinic", hashlib.sha256(b"right").digest())])
    async with rig(edge=edge.address, credentials=credentials) as running:
        await running.stub.Generate(request(), metadata=(("authorization", "Bearer right"),)).read()
    assert edge_pb2.EdgeServiceGenerateRequest.FromString(edge.seen.payloads[0]).tenant == "clinic"


async def test_health_says_serving(running: Rig) -> None:
    async with grpc.aio.insecure_channel(running.grpc_address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(service="flashgate.v1.GatewayService"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
