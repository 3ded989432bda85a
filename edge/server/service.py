"""EdgeService on gRPC: hands requests on, and turns every end they can have into a status, a log line and a count."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc
import structlog
from flashgate.v1 import edge_pb2, edge_pb2_grpc

from edge import logs
from edge.errors import EdgeError
from edge.server import error_table, wire
from edge.server.admission import Admission
from edge.server.error_table import Refusal
from edge.server.exchange import Exchange, ServedModel
from edge.server.observed import Observer, Outcome, RequestEnded
from edge.server.rates import Rates
from edge.server.request import Received
from edge.server.status import NodeStatus

Context = grpc.aio.ServicerContext[edge_pb2.EdgeServiceGenerateRequest, edge_pb2.EdgeServiceGenerateResponse]
StatusContext = grpc.aio.ServicerContext[edge_pb2.EdgeServiceGetStatusRequest, edge_pb2.EdgeServiceGetStatusResponse]

SERVICE = edge_pb2.DESCRIPTOR.services_by_name["EdgeService"].full_name
REQUEST_ID_KEY = "flashgate-request-id"

log = structlog.get_logger()


def add_to_server(service: "EdgeService", server: grpc.aio.Server) -> None:
    """What the generated function does, and a clear refusal of bytes that cannot be parsed."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Generate": grpc.unary_stream_rpc_method_handler(
            service.Generate,
            request_deserializer=Received.parse,
            response_serializer=edge_pb2.EdgeServiceGenerateResponse.SerializeToString,
        ),
        "GetStatus": grpc.unary_unary_rpc_method_handler(
            service.GetStatus,
            request_deserializer=edge_pb2.EdgeServiceGetStatusRequest.FromString,
            response_serializer=edge_pb2.EdgeServiceGetStatusResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class EdgeService(edge_pb2_grpc.EdgeServiceServicer):
    """Answers Generate and GetStatus. `num_active` requests are being answered, slow readers included."""

    def __init__(
        self,
        model: ServedModel,
        admission: Admission,
        rates: Rates,
        status: Callable[[], NodeStatus],
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._admission, self._rates = model, admission, rates
        self._status, self._observer, self._clock = status, observer, clock
        self.num_active = 0

    # A coroutine that writes and not a generator, which would learn too late that nobody reads any more.
    async def Generate(self, request: Received, context: Context) -> None:  # type: ignore[override] # noqa: N802
        exchange = Exchange(self._model, self._admission, self._rates, context.write, self._clock)
        self.num_active += 1
        try:
            refused = await self._answered(exchange, request, context)
        finally:
            self.num_active -= 1
        if refused is not None:
            await context.abort(refused.code, refused.message, refused.trailing_metadata())

    async def GetStatus(  # noqa: N802
        self,
        request: edge_pb2.EdgeServiceGetStatusRequest,  # noqa: ARG002
        context: StatusContext,  # noqa: ARG002
    ) -> edge_pb2.EdgeServiceGetStatusResponse:
        return wire.status_response(self._status())

    async def _answered(self, exchange: Exchange, received: Received, context: Context) -> Refusal | None:
        """Answer the request; returns what to refuse it with, None once it was answered or nobody waits."""
        outcome, refused, request_id = Outcome.FINISHED, None, ""
        time_left_s = context.time_remaining()
        try:
            request_id = received.request_id
            await context.send_initial_metadata(((REQUEST_ID_KEY, request_id),))
            async with asyncio.timeout(time_left_s):
                await exchange.run(received)
        except asyncio.CancelledError:
            outcome = _left(exchange, time_left_s)
            raise
        except grpc.aio.InternalError:  # a write to a caller who has just gone
            outcome = _left(exchange, time_left_s)
        except TimeoutError:
            refused = error_table.DEADLINE
        except EdgeError as error:
            refused = error_table.refusal(error)
        except Exception as error:
            log.error("request_broke", request_id=request_id, **logs.error_fields(error))  # noqa: TRY400 -- no text
            refused = error_table.INTERNAL
        finally:
            self._report(exchange.ended(refused.outcome if refused else outcome), request_id, refused)
        return refused

    def _report(self, ended: RequestEnded, request_id: str, refused: Refusal | None) -> None:
        self._observer(ended)
        log.info(
            "request_ended",
            request_id=request_id,
            outcome=str(ended.outcome),
            reason=refused.reason if refused else "",
            prompt_tokens=ended.prompt_tokens,
            completion_tokens=ended.completion_tokens,
            ttft_s=None if ended.ttft_s is None else round(ended.ttft_s, 4),
            total_s=round(ended.total_s, 4),
        )


def _left(exchange: Exchange, time_left_s: float | None) -> Outcome:
    """Why nobody reads any more."""
    if exchange.is_complete:
        return Outcome.FINISHED
    return Outcome.DEADLINE if exchange.is_past(time_left_s) else Outcome.CANCELLED
