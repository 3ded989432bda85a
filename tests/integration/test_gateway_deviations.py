"""What an edge says of its deviations reaches the gateway's callers in both protocols; what is none reaches nobody."""

import json
import math

import grpc
import httpx
import pytest
from flashgate.v1 import common_pb2, edge_pb2

from router.gateway.ask_report import route_line
from tests.integration.gateway_fakes import STOP, FakeEdge
from tests.integration.gateway_rig import collect, request, rig

TOLD = {
    "experts_per_token": 8,
    "own_experts_per_token": 10,
    "substitute": 0.5,
    "chosen_experts": 800,
    "substituted_experts": 40,
    "router_weight_kept": 0.975,
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


class DeviatingEdge(FakeEdge):
    """Trades quality for speed and says so."""

    def __init__(self, **changes: float) -> None:
        super().__init__()
        self.deviations = common_pb2.Deviations(**(TOLD | changes))  # type: ignore[arg-type] # by name

    def end(self, num_texts: int) -> bytes:
        usage = common_pb2.Usage(prompt_tokens=7, completion_tokens=num_texts)
        finished = edge_pb2.EdgeFinished(finish_reason=STOP, usage=usage, deviations=self.deviations)
        return edge_pb2.EdgeServiceGenerateResponse(finished=finished).SerializeToString()


async def test_deviations_are_told_in_both_protocols() -> None:
    async with DeviatingEdge() as edge, rig(edge=edge.address) as running:
        answer = await collect(running, request())
        assert answer.completion.deviations == edge.deviations
        assert "97.5% of its routers' weight kept" in route_line(answer.decision, answer.completion)
        async with httpx.AsyncClient(base_url=running.http_url, trust_env=False) as client:
            whole = await client.post("/v1/chat/completions", json=CHAT)
            streamed = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
        assert whole.json()["flashgate"]["deviations"] == TOLD
        chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
        assert [chunk["flashgate"]["deviations"] for chunk in chunks if "flashgate" in chunk] == [TOLD]


async def test_an_answer_that_is_the_models_own_tells_none() -> None:
    async with FakeEdge() as edge, rig(edge=edge.address) as running:
        answer = await collect(running, request())
        assert not answer.completion.HasField("deviations")
        assert "not wholly" not in route_line(answer.decision, answer.completion)
        async with httpx.AsyncClient(base_url=running.http_url, trust_env=False) as client:
            whole = await client.post("/v1/chat/completions", json=CHAT)
        assert whole.json()["flashgate"]["deviations"] is None


@pytest.mark.parametrize("changes", [{"router_weight_kept": math.nan}, {"substitute": math.inf}])
async def test_deviations_that_are_no_numbers_end_the_answer_as_broken(changes: dict[str, float]) -> None:
    async with DeviatingEdge(**changes) as edge, rig(edge=edge.address) as running:
        with pytest.raises(grpc.aio.AioRpcError, match="deviations are no numbers"):
            await collect(running, request())
