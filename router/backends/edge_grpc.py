"""An edge node over gRPC: EdgeService, its state read twice a second."""

import dataclasses
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
from flashgate.v1 import edge_pb2, edge_pb2_grpc

from router.backends import grpc_wire
from router.backends.backend import Deviations, Finished, StateObserver, TextDelta
from router.backends.failure import BackendError, Cause
from router.backends.grpc_channel import backend_error, is_loopback, open_channel
from router.backends.watcher import Watcher
from router.privacy.permit import Permit, PermitOffice
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Lane

POLL_INTERVAL_S = 0.5
# A busy machine may take a moment to answer; a dead one refuses the connection at once.
POLL_TIMEOUT_S = 2.0
MISSES_ALLOWED = 2

_ENGINE_CAUSES = {
    edge_pb2.ENGINE_STATE_UNSPECIFIED: "the engine's state is not known",
    edge_pb2.ENGINE_STATE_LOADING: "the engine is loading",
    edge_pb2.ENGINE_STATE_RESTARTING: "the engine died and is being restarted",
    edge_pb2.ENGINE_STATE_DRAINING: "draining",
    edge_pb2.ENGINE_STATE_FAILED: "the engine cannot be loaded",
}


def _finished(backend: str, end: edge_pb2.EdgeFinished) -> Finished:
    """Raises BackendError for an end that says no reason, or what is no number."""
    finished = grpc_wire.finished(backend, end.finish_reason, end.usage, end.reused_prompt_tokens)
    if not end.HasField("deviations"):
        return finished
    told = end.deviations
    if not (math.isfinite(told.substitute) and math.isfinite(told.router_weight_kept)):
        raise BackendError(backend, Cause.BROKEN, "the answer's deviations are no numbers")
    deviations = Deviations(
        experts_per_token=told.experts_per_token,
        own_experts_per_token=told.own_experts_per_token,
        substitute=told.substitute,
        chosen_experts=told.chosen_experts,
        substituted_experts=told.substituted_experts,
        router_weight_kept=told.router_weight_kept,
    )
    return dataclasses.replace(finished, deviations=deviations)


class EdgeGrpcBackend:
    """One edge node. Its reach is this device only if its address cannot lead elsewhere."""

    lane: Lane = "edge"

    def __init__(self, name: str, address: str, capability: str, office: PermitOffice, observe: StateObserver) -> None:
        self.name = name
        self.reach = Reach.DEVICE if is_loopback(address) else Reach.FLEET
        self._office = office
        self._observe = observe
        self._channel = open_channel(address)
        self._stub: edge_pb2_grpc.EdgeServiceAsyncStub = edge_pb2_grpc.EdgeServiceStub(self._channel)
        self._generate = grpc_wire.ExactCall(
            name,
            self._channel,
            "/flashgate.v1.EdgeService/Generate",
            edge_pb2.EdgeServiceGenerateResponse.FromString,
        )
        self._watcher = Watcher(self._look)
        self._misses = 0
        self._state = BackendState(
            name=name, lane=self.lane, reach=self.reach, available=False, cause="not asked yet", capability=capability
        )

    async def start(self) -> None:
        await self._watcher.start()

    async def close(self) -> None:
        await self._watcher.close()
        await self._channel.close()

    def state(self) -> BackendState:
        return self._state

    def payload(self, request: GenerationRequest, request_id: str) -> bytes:
        message = edge_pb2.EdgeServiceGenerateRequest(
            request_id=request_id,
            chat=edge_pb2.ChatPrompt(messages=grpc_wire.chat_messages(request)),
            sampling=grpc_wire.sampling(request.sampling),
            # It keeps prompts' beginnings for reuse, and must know whose they are.
            tenant=request.tenant,
        )
        return message.SerializeToString(deterministic=True)

    async def send(self, permit: Permit, payload: bytes) -> AsyncGenerator[TextDelta | Finished, None]:
        self._office.redeem(permit, self.name, payload)
        try:
            async with aclosing(self._generate.answers(payload)) as answers:
                async for answer in answers:
                    match answer.WhichOneof("event"):
                        case "tokens" if answer.tokens.text:
                            yield TextDelta(answer.tokens.text)
                        case "finished":
                            yield _finished(self.name, answer.finished)
                            return
        except BackendError as exc:
            if exc.cause.is_health:
                self._watcher.nudge()
            if exc.cause is Cause.PROMPT_TOO_LONG:
                limit = f"the prompt does not fit the model's context of {self._state.context_tokens} tokens"
                raise BackendError(self.name, exc.cause, limit) from None
            raise
        raise BackendError(self.name, Cause.BROKEN, "the stream ended before the answer did")

    async def _look(self) -> float:
        try:
            status = await self._stub.GetStatus(edge_pb2.EdgeServiceGetStatusRequest(), timeout=POLL_TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            cause = backend_error(self.name, exc).cause
            self._misses += 1
            if cause is Cause.TIMED_OUT and self._misses <= MISSES_ALLOWED:
                return POLL_INTERVAL_S
            # What was known of the queue and the rates is no longer true of a server that is gone.
            self._state = dataclasses.replace(self._state, available=False, cause=cause, queue_depth=0, running=0)
        else:
            self._misses = 0
            self._state = self._from_status(status)
        self._observe(self._state)
        return POLL_INTERVAL_S

    def _from_status(self, status: edge_pb2.EdgeServiceGetStatusResponse) -> BackendState:
        cause = _ENGINE_CAUSES.get(status.engine_state, "")
        return dataclasses.replace(
            self._state,
            available=status.engine_state == edge_pb2.ENGINE_STATE_READY,
            cause=cause,
            model=status.model,
            queue_depth=status.queue_depth,
            queue_limit=status.queue_limit,
            running=status.running,
            pending_prompt_tokens=status.pending_prompt_tokens,
            steps_until_place=status.steps_until_place,
            prefill_tokens_per_second=status.prefill_tokens_per_second,
            prompt_base_s=status.prompt_base.ToNanoseconds() / 1e9,
            decode_tokens_per_second=status.decode_tokens_per_second,
            prompt_bytes_per_token=status.prompt_bytes_per_token,
            context_tokens=status.context_tokens,
        )
