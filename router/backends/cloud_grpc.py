"""A cloud over gRPC: CloudService, its health read every two seconds."""

import dataclasses
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
from flashgate.v1 import cloud_pb2
from grpc_health.v1 import health_pb2

from router.backends import grpc_wire
from router.backends.backend import Finished, StateObserver, TextDelta
from router.backends.failure import BackendError, Cause
from router.backends.grpc_channel import backend_error, open_channel
from router.backends.watcher import Watcher
from router.privacy.permit import Permit, PermitOffice
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Lane

SERVICE = "flashgate.v1.CloudService"
POLL_INTERVAL_S = 2.0
# While it is down it is asked more often, so that it is used again soon.
POLL_INTERVAL_DOWN_S = 0.5
POLL_TIMEOUT_S = 2.0
# A model's name goes into logs and metrics, and the server that gives it has just read a request.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")


class CloudGrpcBackend:
    """One cloud. Its reach is the cloud's wherever it listens: a stub on this device stands for the real one."""

    lane: Lane = "cloud"
    reach = Reach.CLOUD

    def __init__(
        self, name: str, address: str, model: str, capability: str, office: PermitOffice, observe: StateObserver
    ) -> None:
        self.name = name
        self._model = model
        self._office = office
        self._observe = observe
        self._channel = open_channel(address)
        self._check = self._channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        self._generate = grpc_wire.ExactCall(
            name, self._channel, f"/{SERVICE}/Generate", cloud_pb2.CloudServiceGenerateResponse.FromString
        )
        self._watcher = Watcher(self._look)
        self._state = BackendState(
            name=name,
            lane=self.lane,
            reach=self.reach,
            available=False,
            cause="not asked yet",
            model=model,
            capability=capability,
        )

    async def start(self) -> None:
        await self._watcher.start()

    async def close(self) -> None:
        await self._watcher.close()
        await self._channel.close()

    def state(self) -> BackendState:
        return self._state

    def payload(self, request: GenerationRequest, request_id: str) -> bytes:
        message = cloud_pb2.CloudServiceGenerateRequest(
            request_id=request_id,
            model=self._model,
            messages=grpc_wire.chat_messages(request),
            sampling=grpc_wire.sampling(request.sampling),
        )
        return message.SerializeToString(deterministic=True)

    async def send(self, permit: Permit, payload: bytes) -> AsyncGenerator[TextDelta | Finished, None]:
        self._office.redeem(permit, self.name, payload)
        try:
            async with aclosing(self._generate.answers(payload)) as answers:
                async for answer in answers:
                    match answer.WhichOneof("event"):
                        case "delta":
                            self._learn_model(answer.delta.model)
                            if answer.delta.text:
                                yield TextDelta(answer.delta.text)
                        case "finished":
                            end = answer.finished
                            usage = end.usage if end.HasField("usage") else None
                            yield grpc_wire.finished(self.name, end.finish_reason, usage)
                            return
        except BackendError as exc:
            if exc.cause.is_health:
                self._watcher.nudge()
            raise
        raise BackendError(self.name, Cause.BROKEN, "the stream ended before the answer did")

    def _learn_model(self, model: str) -> None:
        """The server's own default has no name until it answers."""
        if not self._model and model != self._state.model and _MODEL.fullmatch(model):
            self._update(model=model)

    async def _look(self) -> float:
        try:
            request = health_pb2.HealthCheckRequest(service=SERVICE)
            answer = await self._check(request, timeout=POLL_TIMEOUT_S)
        except grpc.aio.AioRpcError as exc:
            # Health is optional: a server that answers "I do not know that" is there.
            up = exc.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)
            self._update(available=up, cause="" if up else backend_error(self.name, exc).cause)
        else:
            up = answer.status == health_pb2.HealthCheckResponse.SERVING
            self._update(available=up, cause="" if up else "it says that it is not serving")
        return POLL_INTERVAL_S if up else POLL_INTERVAL_DOWN_S

    def _update(self, **changes: object) -> None:
        self._state = dataclasses.replace(self._state, **changes)  # type: ignore[arg-type]  # names and types are checked by replace's callers here
        self._observe(self._state)
