"""Servers behind the gateway that speak the protocol and yet do not mean it."""

from collections.abc import AsyncGenerator
from typing import Any

import grpc
import httpx
import pytest
from flashgate.v1 import cloud_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from router.request import GenerationRequest, Message
from router.resilience.attempts import Limits
from tests.integration.gateway_fakes import FakeCloud, FakeEdge, FakeGrpc, Script, until
from tests.integration.gateway_rig import collect, prefer, request, rig

CANARY = "CANARY-4711"


class GarblingEdge(FakeEdge):
    """Its answers are no messages."""

    def text(self, text: str) -> bytes:
        return b"\xff\xff\xff"


class PatientEdge(FakeEdge):
    """Asks for a retry in so long a time that no clock holds it."""

    async def _generate(
        self,
        payload: bytes,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncGenerator[bytes, None]:
        rich = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
        rich.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=10**15)))
        await context.abort(
            grpc.StatusCode.UNAVAILABLE, CANARY, (("grpc-status-details-bin", rich.SerializeToString()),)
        )
        yield b""


class ParrotCloud(FakeCloud):
    """Gives what it was asked for its model's name."""

    def text(self, text: str) -> bytes:
        delta = cloud_pb2.CloudDelta(text=text, model=f"you said {CANARY}")
        return cloud_pb2.CloudServiceGenerateResponse(delta=delta).SerializeToString()


@pytest.mark.parametrize(("kind", "cause"), [(GarblingEdge, "broken"), (PatientEdge, "unreachable")])
async def test_edge_that_answers_nonsense_is_replaced_before_the_first_text(kind: type[FakeGrpc], cause: str) -> None:
    async with kind() as edge, FakeCloud() as cloud, rig(edge=edge.address, cloud=cloud.address) as running:
        answer = await collect(running, request())
        assert answer.decision.backend == "cloud"
        assert list(answer.decision.fallbacks) == [f"edge: {cause}"]


async def test_name_that_a_cloud_gives_its_model_is_no_place_for_content() -> None:
    async with ParrotCloud() as cloud, rig(cloud=cloud.address, policy=prefer("cloud")) as running:
        answer = await collect(running, request(CANARY))
        assert answer.text
        assert CANARY not in str(answer.decision)
        assert CANARY not in running.log.getvalue()
        assert CANARY not in running.exposition()


async def test_answer_that_does_not_end_is_ended() -> None:
    texts = ("more",) * 100
    async with FakeEdge(Script(texts=texts)) as edge, rig(edge=edge.address, limits=Limits(answer_chars=40)) as running:
        with pytest.raises(grpc.aio.AioRpcError, match="more than 40 characters"):
            await collect(running, request())


async def test_caller_that_leaves_with_the_decision_frees_the_backend() -> None:
    async with FakeEdge(Script(hang_after=1)) as edge, rig(edge=edge.address) as running:
        events = running.gateway.generate(GenerationRequest((Message("user", "hello"),)), "id", None)
        await anext(events)
        await events.aclose()
        # Not left to the garbage collector.
        await until(lambda: edge.seen.cancelled.is_set(), "the edge's call cancelled")


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=abc", "text/plain; version=1.x; escaping=y"])
async def test_metrics_are_exposed_to_whoever_asks_oddly(accept: str) -> None:
    async with FakeEdge() as edge, rig(edge=edge.address) as running, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{running.http_url}/metrics", headers={"accept": accept})
        assert answer.status_code == 200
        assert "flashgate_requests_in_flight" in answer.text
