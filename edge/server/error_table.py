"""The one table from our errors to gRPC: google.rpc.Status with ErrorInfo, and RetryInfo where waiting helps."""

from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from edge import errors
from edge.server.observed import Outcome

DOMAIN = "flashgate"
DETAILS_KEY = "grpc-status-details-bin"

# The first class that fits; the tree of edge.errors from its leaves to its root.
_TABLE: tuple[tuple[type[errors.EdgeError], grpc.StatusCode, str, Outcome], ...] = (
    (errors.PromptTooLongError, grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_TOO_LONG", Outcome.REFUSED),
    (errors.RequestError, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", Outcome.REFUSED),
    (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", Outcome.OVERLOADED),
    (errors.UnavailableError, grpc.StatusCode.UNAVAILABLE, "ENGINE_UNAVAILABLE", Outcome.UNAVAILABLE),
    (errors.CancelledError, grpc.StatusCode.CANCELLED, "CANCELLED", Outcome.CANCELLED),
    (errors.StorageError, grpc.StatusCode.DATA_LOSS, "STORAGE", Outcome.FAILED),
    (errors.EdgeError, grpc.StatusCode.INTERNAL, "INTERNAL", Outcome.FAILED),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request's end, as gRPC and the metrics know it."""

    code: grpc.StatusCode
    reason: str
    message: str
    outcome: Outcome
    retry_after_s: float | None = None

    def trailing_metadata(self) -> tuple[tuple[str, bytes]]:
        """The rich status that goes with the code."""
        details = [_packed(ErrorInfo(reason=self.reason, domain=DOMAIN))]
        if self.retry_after_s is not None:
            delay = Duration()
            delay.FromMilliseconds(round(self.retry_after_s * 1000))
            details.append(_packed(RetryInfo(retry_delay=delay)))
        status = Status(code=self.code.value[0], message=self.message, details=details)
        return ((DETAILS_KEY, status.SerializeToString()),)


DEADLINE = Refusal(
    grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the request's deadline passed", Outcome.DEADLINE
)
INTERNAL = Refusal(grpc.StatusCode.INTERNAL, "INTERNAL", "the server failed unexpectedly", Outcome.FAILED)


def refusal(error: errors.EdgeError) -> Refusal:
    """What `error` is to a caller."""
    code, reason, outcome = next(row[1:] for row in _TABLE if isinstance(error, row[0]))
    retry_after_s = getattr(error, "retry_after_s", None)
    return Refusal(code, getattr(error, "reason", reason), str(error), outcome, retry_after_s)


def _packed(message: ErrorInfo | RetryInfo) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed
