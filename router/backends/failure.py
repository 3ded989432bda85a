"""How a backend can fail, in words that both lanes share."""

import enum

from router.errors import RouterError


class Cause(enum.StrEnum):
    """A closed set: metric labels and reasons are built from it."""

    UNREACHABLE = "unreachable"
    OVERLOADED = "overloaded"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    PROMPT_TOO_LONG = "prompt_too_long"
    UNAUTHORIZED = "unauthorized"
    FAILED = "failed"
    BROKEN = "broken"

    @property
    def is_health(self) -> bool:
        """It speaks against the server's health: a busy server or a bad request does not."""
        return self not in (Cause.REJECTED, Cause.PROMPT_TOO_LONG, Cause.OVERLOADED)


class BackendError(RouterError):
    """A backend did not answer, or not to the end.

    The text is for the caller; logs and metrics take only `backend` and `cause`, because a server's words may quote
    the request.
    """

    def __init__(self, backend: str, cause: Cause, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"backend {backend}: {detail}")
        self.backend = backend
        self.cause = cause
        self.retry_after_s = retry_after_s
