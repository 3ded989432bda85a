"""CloudService over gRPC: wire types stop here."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import NoReturn

import grpc
from flashgate.v1 import cloud_pb2, common_pb2
from google.protobuf import duration_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cloud_stub.cloud import Cloud, Delta, Finished
from cloud_stub.errors import CutError, InjectedError, RecordError, RequestError, StartError, StoppingError
from cloud_stub.intake import Intake
from cloud_stub.request import ChatRequest, Message, Sampling
from cloud_stub.request_id import request_id_from
from cloud_stub.status import Status

SERVICE = cloud_pb2.DESCRIPTOR.services_by_name["CloudService"].full_name
MAX_MESSAGE_BYTES = 16 << 20
RETRY_DELAY_S = 1

_Context = grpc.aio.ServicerContext[bytes, cloud_pb2.CloudServiceGenerateResponse]


class GrpcServer:
    """CloudService, health and reflection on one port."""

    def __init__(self, cloud: Cloud, intake: Intake) -> None:
        self._cloud = cloud
        self._intake = intake
        # Without this a second stub on the same port would start and take half of the requests.
        options = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES))
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Generate": self._rpc()}),)
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    async def start(self, address: str) -> int:
        """Listen; returns the port, which differs from the asked one if that was 0. Raises StartError."""
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as exc:
            raise StartError(
                f"gRPC cannot listen on {address}: is the port in use? `ss -ltnp` names who has it; "
                "or choose another with --port"
            ) from exc
        await self._server.start()
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_s: float) -> None:
        """Refuse new requests, let running ones end within `grace_s`, then cut them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    def _rpc(self) -> "grpc.RpcMethodHandler[bytes, cloud_pb2.CloudServiceGenerateResponse]":
        """Bytes in, not messages: what does not even parse must reach the record too."""
        serializer = cloud_pb2.CloudServiceGenerateResponse.SerializeToString
        return grpc.unary_stream_rpc_method_handler(self._generate, response_serializer=serializer)

    async def _generate(
        self, payload: bytes, context: _Context
    ) -> AsyncGenerator[cloud_pb2.CloudServiceGenerateResponse, None]:
        try:
            message = _parse(payload)
            await self._intake.received(_entry(payload, message, context))
            async with aclosing(self._cloud.generate(_chat_request(message))) as events:
                async for event in events:
                    yield _response(event, self._cloud.model)
        except InjectedError as exc:
            await _abort(context, exc.status, "INJECTED_FAILURE", str(exc))
        except CutError as exc:
            # What a client sees when the connection to a server breaks.
            await _abort(context, Status.parse("UNAVAILABLE"), "STREAM_CUT", str(exc))
        except StoppingError as exc:
            await _abort(context, Status.parse("UNAVAILABLE"), "STOPPING", str(exc))
        except RequestError as exc:
            await _abort(context, Status.parse("INVALID_ARGUMENT"), "INVALID_REQUEST", str(exc))
        except RecordError as exc:
            await _abort(context, Status.parse("INTERNAL"), "RECORD_FAILED", str(exc))


def _parse(payload: bytes) -> cloud_pb2.CloudServiceGenerateRequest | None:
    """None if the bytes are no such message: they are recorded as they came, then refused."""
    try:
        return cloud_pb2.CloudServiceGenerateRequest.FromString(payload)
    except DecodeError:
        return None


def _entry(
    payload: bytes, message: cloud_pb2.CloudServiceGenerateRequest | None, context: _Context
) -> Mapping[str, object]:
    """The whole request for the record: metadata, message, and the bytes where the message does not hold them all."""
    metadata = [[key, _text(value)] for key, value in context.invocation_metadata() or ()]
    entry: dict[str, object] = {"protocol": "grpc", "method": f"/{SERVICE}/Generate", "metadata": metadata}
    if message is not None:
        entry["request"] = MessageToDict(message, preserving_proto_field_name=True)
    if message is None or _has_unknown_fields(message):
        entry["payload"] = _text(payload)
    return entry


def _has_unknown_fields(message: cloud_pb2.CloudServiceGenerateRequest) -> bool:
    known = cloud_pb2.CloudServiceGenerateRequest()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


def _text(value: str | bytes) -> str:
    """Bytes as searchable text; what is no UTF-8 becomes \\x escapes."""
    return value if isinstance(value, str) else value.decode("utf-8", "backslashreplace")


def _chat_request(message: cloud_pb2.CloudServiceGenerateRequest | None) -> ChatRequest:
    """Raises RequestError naming the field and its range."""
    if message is None:
        raise RequestError("the payload is no CloudServiceGenerateRequest")
    return ChatRequest(
        request_id=request_id_from(message.request_id),
        messages=tuple(Message(turn.role, turn.content) for turn in message.messages),
        sampling=_sampling(message.sampling),
    )


def _sampling(message: common_pb2.Sampling) -> Sampling:
    return Sampling(
        max_tokens=message.max_tokens if message.HasField("max_tokens") else None,
        temperature=message.temperature if message.HasField("temperature") else None,
        top_p=message.top_p if message.HasField("top_p") else None,
        top_k=message.top_k if message.HasField("top_k") else None,
        min_p=message.min_p if message.HasField("min_p") else None,
        seed=message.seed if message.HasField("seed") else None,
        stop=tuple(message.stop),
    )


def _response(event: Delta | Finished, model: str) -> cloud_pb2.CloudServiceGenerateResponse:
    if isinstance(event, Delta):
        return cloud_pb2.CloudServiceGenerateResponse(delta=cloud_pb2.CloudDelta(text=event.text, model=model))
    reasons = {"stop": common_pb2.FINISH_REASON_STOP, "length": common_pb2.FINISH_REASON_LENGTH}
    usage = common_pb2.Usage(prompt_tokens=event.prompt_tokens, completion_tokens=event.completion_tokens)
    return cloud_pb2.CloudServiceGenerateResponse(
        finished=cloud_pb2.CloudFinished(finish_reason=reasons[event.finish_reason], usage=usage)
    )


async def _abort(context: _Context, status: Status, reason: str, message: str) -> NoReturn:
    rich = status_pb2.Status(code=status.grpc.value[0], message=message)
    rich.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="flashgate"))
    if status.retry_helps:
        delay = duration_pb2.Duration(seconds=RETRY_DELAY_S)
        rich.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    await context.abort(status.grpc, message, (("grpc-status-details-bin", rich.SerializeToString()),))
