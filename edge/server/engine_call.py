"""One request as the engine process works on it, and how its end and that process's end read over here."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

from edge import errors
from edge.errors import CancelledError, EdgeError, UnavailableError


@dataclass(frozen=True, slots=True)
class Completion:
    """How a request of the engine ended: "stop" or "length"."""

    reason: str


class EngineCall:
    """The request that the engine is working on."""

    def __init__(self, job: int, on_token: Callable[[int], None]) -> None:
        self.job = job
        self.on_token = on_token
        self.result: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()

    def fail(self, error: EdgeError) -> None:
        if not self.result.done():
            self.result.set_exception(error)

    def finish(self, completion: Completion) -> None:
        if not self.result.done():
            self.result.set_result(completion)


def as_error(name: str, message: str) -> EdgeError:
    if name == "CancelledError":
        return CancelledError(message)
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.EdgeError) and kind not in (errors.OverloadedError,):
        return kind(message)
    # A foreign error: the engine ends itself after one.
    return UnavailableError(f"{message}: {name}", "ENGINE_DIED")


def describe_exit(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else str(-status)
    return f"{name} (out of memory?)" if -status == signal.SIGKILL else name
