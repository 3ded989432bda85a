"""GatewayService over gRPC, with health and reflection: wire types stop here and in `wire`."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from importlib.metadata import version
from typing import Any, Final, NoReturn, TypeVar

import grpc
from flashgate.v1 import gateway_pb2
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from router.backends.backend import TextDelta
from router.errors import ConfigError, RouterError
from router.gateway import wire
from router.gateway.answer import Completion, Decision
from router.gateway.credentials import Credentials
from router.gateway.json_reader import shown
from router.gateway.parameter import ParameterError
from router.gateway.status import Status, status_of
from router.gateway.use_case import Gateway, new_decision_id
from router.logging import Logger, failure_fields

_Request = TypeVar("_Request")
_Context = grpc.aio.ServicerContext[Any, Any]

_VERSION: Final = version("flashgate")
SERVICE: Final = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name
# Above the limit of a request's content, so that what is too long is refused in words.
MAX_REQUEST_BYTES: Final = 16 << 20
# Kept back from the caller's deadline, so that our answer is there before the caller stops waiting.
DEADLINE_MARGIN_S: Final = 0.02
DEADLINE_MARGIN_SHARE: Final = 0.05


class GrpcServer:
    """GatewayService, health and reflection on one port."""

    def __init__(self, gateway: Gateway, credentials: Credentials, log: Logger) -> None:
        self._gateway = gateway
        self._credentials = credentials
        self._log = log
        options = (
            # Without this a second gateway on the same port would start and take half of the requests.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.max_metadata_size", 16 << 10),
            # A caller that vanished without a word must not hold a backend until its answer ends.
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
        )
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, address: str) -> int:
        """Listen; returns the port, which differs from the asked one if that was 0. Raises ConfigError."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as exc:
            raise ConfigError(
                f"gRPC cannot listen on {address}: is the port in use? `ss -ltnp` names who has it; "
                "or choose another with --grpc-port"
            ) from exc
        await self._server.start()
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, let running ones end within `grace_s`, then cut them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    def _handlers(self) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
        """Bytes in, not messages: bytes that do not parse get an answer that says so."""
        return {
            "Generate": grpc.unary_stream_rpc_method_handler(
                self._generate, response_serializer=gateway_pb2.GenerateResponse.SerializeToString
            ),
            "Explain": grpc.unary_unary_rpc_method_handler(
                self._explain, response_serializer=gateway_pb2.ExplainResponse.SerializeToString
            ),
            "ListModels": grpc.unary_unary_rpc_method_handler(
                self._list_models, response_serializer=gateway_pb2.ListModelsResponse.SerializeToString
            ),
            "GetStatus": grpc.unary_unary_rpc_method_handler(
                self._get_status, response_serializer=gateway_pb2.GetStatusResponse.SerializeToString
            ),
        }

    async def _generate(self, payload: bytes, context: _Context) -> AsyncGenerator[gateway_pb2.GenerateResponse, None]:
        decision_id = new_decision_id()
        try:
            tenant = self._tenant(context)
            _refuse_our_headers(context)
            request = wire.request(_parse(gateway_pb2.GenerateRequest.FromString, payload), tenant)
            async with aclosing(self._gateway.generate(request, decision_id, _time_left_s(context))) as events:
                async for event in events:
                    yield _response(event)
        except Exception as exc:
            await self._abort(context, exc, decision_id)

    async def _explain(self, payload: bytes, context: _Context) -> gateway_pb2.ExplainResponse:
        decision_id = new_decision_id()
        try:
            tenant = self._tenant(context)
            _refuse_our_headers(context)
            message = _parse(gateway_pb2.ExplainRequest.FromString, payload).request
            return wire.explanation(await self._gateway.explain(wire.request(message, tenant), decision_id))
        except Exception as exc:
            await self._abort(context, exc, decision_id)

    async def _list_models(self, payload: bytes, context: _Context) -> gateway_pb2.ListModelsResponse:
        try:
            self._tenant(context)
            _parse(gateway_pb2.ListModelsRequest.FromString, payload)
            return wire.models(self._gateway.states())
        except Exception as exc:
            await self._abort(context, exc, "")

    async def _get_status(self, payload: bytes, context: _Context) -> gateway_pb2.GetStatusResponse:
        try:
            self._tenant(context)
            _parse(gateway_pb2.GetStatusRequest.FromString, payload)
            return gateway_pb2.GetStatusResponse(
                version=_VERSION,
                policy_hash=self._gateway.policy_hash,
                policy_error=self._gateway.policy_error,
                backends=[wire.backend_status(state) for state in self._gateway.states()],
            )
        except Exception as exc:
            await self._abort(context, exc, "")

    def _tenant(self, context: _Context) -> str:
        values = [_text(value) for key, value in context.invocation_metadata() or () if key == "authorization"]
        return self._credentials.tenant(values)

    async def _abort(self, context: _Context, error: Exception, decision_id: str) -> NoReturn:
        if not isinstance(error, RouterError):
            self._log.error("grpc_request_failed", decision_id=decision_id, **failure_fields(error))
        status = status_of(error)
        details = (("grpc-status-details-bin", _rich(status, decision_id).SerializeToString()),)
        await context.abort(status.grpc, status.message, details)


def _rich(status: Status, decision_id: str) -> status_pb2.Status:
    """google.rpc.Status with ErrorInfo, and RetryInfo where waiting helps."""
    rich = status_pb2.Status(code=status.grpc.value[0], message=status.message)
    metadata = {"decision_id": decision_id} if decision_id else {}
    if status.param is not None:
        metadata["parameter"] = status.param
    rich.details.add().Pack(error_details_pb2.ErrorInfo(reason=status.reason, domain="flashgate", metadata=metadata))
    if status.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(status.retry_after_s * 1000))
        rich.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return rich


def _refuse_our_headers(context: _Context) -> None:
    """What HTTP takes as headers stands in the message here; as metadata a tag would be lost."""
    for key, _ in context.invocation_metadata() or ():
        if str(key).replace("_", "-").startswith("x-flashgate-"):
            raise ParameterError(shown(str(key)), "goes into the message, not into metadata", "unknown_parameter")


def _parse(read: Callable[[bytes], _Request], payload: bytes) -> _Request:
    try:
        return read(payload)
    except DecodeError:
        raise ParameterError(None, "the bytes are not the message that this method takes", "malformed") from None


def _response(event: Decision | TextDelta | Completion) -> gateway_pb2.GenerateResponse:
    match event:
        case Decision():
            return gateway_pb2.GenerateResponse(decision=wire.decision(event))
        case TextDelta():
            return gateway_pb2.GenerateResponse(delta=gateway_pb2.TextDelta(text=event.text))
        case Completion():
            return gateway_pb2.GenerateResponse(completion=wire.completion(event))


def _time_left_s(context: _Context) -> float | None:
    """Until the caller's deadline, less our own margin; None without one."""
    left_s = context.time_remaining()
    if left_s is None:
        return None
    return max(0.0, left_s - min(DEADLINE_MARGIN_S, left_s * DEADLINE_MARGIN_SHARE))


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
