"""One request as the engine process works on it, and how its end and that process's end read over here."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge import errors
from edge.errors import CancelledError, EdgeError, UnavailableError
from edge.sampler import SamplingParams
from edge.server.pipe import Worked


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a request asks of the engine. tenant: the scope within which the prompt may be recognised again."""

    ids: Sequence[int] = field(repr=False)
    sampling: SamplingParams
    tenant: str = field(default="", repr=False)


class Listener(Protocol):
    """Told what the engine makes of one request: `started`, tokens, then one of `finished` and `failed`.

    An error may come at any moment, also before `started`. No method may raise: it would take the engine down.
    """

    def started(self) -> None: ...

    def token(self, token: int, worked: Worked) -> None: ...

    def finished(self, reason: str, worked: Worked) -> None:
        """The completion has ended: "stop" or "length"."""

    def failed(self, error: EdgeError) -> None: ...


def as_error(name: str, message: str) -> EdgeError:
    if name == "CancelledError":
        return CancelledError(message)
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.EdgeError) and kind not in (errors.OverloadedError,):
        return kind(message)
    # No error of ours: nothing is known of what it left behind.
    return UnavailableError(f"{message}: {name}", "ENGINE_DIED")


def describe_exit(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else str(-status)
    return f"{name} (out of memory?)" if -status == signal.SIGKILL else name
