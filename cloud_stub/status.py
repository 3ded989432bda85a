"""One failure status seen over both protocols: `--status` takes either name, each protocol answers in its own."""

from dataclasses import dataclass

import grpc

# google/rpc/code.proto, the HTTP mapping stated beside each code.
_TO_HTTP = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}

# Where several codes share one HTTP status, the one a cloud means by it; other 4xx and 5xx have a default below.
_TO_GRPC = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ABORTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass(frozen=True, slots=True)
class Status:
    """A failure in both protocols' words."""

    grpc: grpc.StatusCode
    http: int

    @classmethod
    def parse(cls, text: str) -> "Status":
        """Read `UNAVAILABLE` or `503`. Raises ValueError naming what is allowed; OK and 2xx are no failures."""
        if text.isascii() and text.isdigit():
            return cls._from_http(int(text))
        code = grpc.StatusCode.__members__.get(text.strip().upper())
        if code is None or code not in _TO_HTTP:
            names = ", ".join(sorted(code.name for code in _TO_HTTP))
            raise ValueError(f"{text!r} is neither an HTTP status from 400 to 599 nor one of {names}")
        return cls(code, _TO_HTTP[code])

    @classmethod
    def _from_http(cls, number: int) -> "Status":
        if not 400 <= number <= 599:
            raise ValueError(f"HTTP status {number} is no failure: give one from 400 to 599")
        default = grpc.StatusCode.FAILED_PRECONDITION if number < 500 else grpc.StatusCode.INTERNAL
        return cls(_TO_GRPC.get(number, default), number)

    @property
    def retry_helps(self) -> bool:
        """Whether a client may expect the same request to succeed later."""
        return self.grpc in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


UNAVAILABLE = Status.parse("UNAVAILABLE")
