"""The border's one table: what each error of ours is over gRPC and over HTTP."""

from dataclasses import dataclass
from typing import Final

import grpc

from router.backends.failure import BackendError, Cause
from router.decide import TOO_SLOW_STRICT
from router.errors import EgressDenied, RefusedError, RequestError, UnauthorizedError
from router.gateway.http_client import BodyTooLongError, BodyTooSlowError, MediaTypeError
from router.gateway.parameter import ParameterError
from router.gateway.use_case import TryLaterError
from router.resilience.attempts import AttemptsError, DeadlineError

# When nothing is known about how long a backend stays away.
RETRY_AFTER_S: Final = 1.0

_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Status:
    """One error in both protocols' words. `reason` is from a closed set; `message` is for the caller only."""

    grpc: grpc.StatusCode
    http: int
    error_type: str
    reason: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None


# gRPC code, HTTP status and the OpenAI API's type of what a backend's failure is to the caller.
_BACKEND: Final = {
    Cause.REJECTED: (_Code.INVALID_ARGUMENT, 400, "invalid_request_error"),
    Cause.PROMPT_TOO_LONG: (_Code.INVALID_ARGUMENT, 400, "invalid_request_error"),
    Cause.OVERLOADED: (_Code.RESOURCE_EXHAUSTED, 429, "rate_limit_error"),
    Cause.TIMED_OUT: (_Code.UNAVAILABLE, 503, "server_error"),
    Cause.UNREACHABLE: (_Code.UNAVAILABLE, 503, "server_error"),
    # The gateway's own key, not the caller's: nothing the caller could mend.
    Cause.UNAUTHORIZED: (_Code.UNAVAILABLE, 503, "server_error"),
    Cause.FAILED: (_Code.UNAVAILABLE, 503, "server_error"),
    Cause.BROKEN: (_Code.UNAVAILABLE, 503, "server_error"),
}


_REQUEST_HTTP: Final[dict[type[RequestError], int]] = {
    BodyTooLongError: 413,
    BodyTooSlowError: 408,
    MediaTypeError: 415,
}


def status_of(error: Exception) -> Status:
    """The status of any error; one that is not ours is INTERNAL and says nothing of itself."""
    match error:
        case RequestError():
            return _request(error)
        case UnauthorizedError():
            code = _Code.UNAUTHENTICATED
            return Status(code, 401, "authentication_error", "INVALID_API_KEY", str(error))
        case RefusedError():
            return _refused(error)
        case DeadlineError():
            code = _Code.DEADLINE_EXCEEDED
            return Status(code, 504, "server_error", "DEADLINE_EXCEEDED", str(error))
        case AttemptsError():
            return _attempts(error)
        case BackendError():
            return _backend(error, str(error))
        case EgressDenied():
            # A candidate outside the floor never gets this far: nothing left, and it is our own fault.
            return Status(_Code.INTERNAL, 500, "server_error", "EGRESS_DENIED", "the privacy floor forbids this send")
    return Status(_Code.INTERNAL, 500, "server_error", "INTERNAL", "internal error; the log has its place")


def _request(error: RequestError) -> Status:
    http = _REQUEST_HTTP.get(type(error), 400)
    reason, param = "INVALID_REQUEST", None
    if isinstance(error, ParameterError):
        reason, param = error.code.upper(), error.param
    return Status(_Code.INVALID_ARGUMENT, http, "invalid_request_error", reason, str(error), param)


def _refused(error: RefusedError) -> Status:
    """Where waiting may help, clients retry on their own; a caller who asked for an answer in time or none must not
    be kept waiting by that."""
    reason = error.reason.upper()
    if isinstance(error, TryLaterError) and error.reason != TOO_SLOW_STRICT:
        return Status(_Code.UNAVAILABLE, 503, "server_error", reason, str(error), None, RETRY_AFTER_S)
    return Status(_Code.FAILED_PRECONDITION, 422, "refused", reason, str(error))


def _attempts(error: AttemptsError) -> Status:
    """The most useful of what the backends said: what the caller can mend, then what waiting mends."""
    order = (Cause.REJECTED, Cause.PROMPT_TOO_LONG, Cause.OVERLOADED)
    rank = {cause: place for place, cause in enumerate(order)}
    worst = min(error.failures, key=lambda failure: rank.get(failure.cause, len(order)))
    return _backend(worst, str(error))


def _backend(error: BackendError, message: str) -> Status:
    code, http, error_type = _BACKEND[error.cause]
    can_retry = code in (_Code.UNAVAILABLE, _Code.RESOURCE_EXHAUSTED)
    retry_after_s = (error.retry_after_s or RETRY_AFTER_S) if can_retry else None
    # The name that clients of the OpenAI API look for.
    is_too_long = error.cause is Cause.PROMPT_TOO_LONG
    reason = "CONTEXT_LENGTH_EXCEEDED" if is_too_long else f"BACKEND_{error.cause.upper()}"
    return Status(code, http, error_type, reason, message, None, retry_after_s)
