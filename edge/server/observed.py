"""What happens in the server, as values: one observer counts them, and nobody else needs to know of metrics."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from edge.server.pipe import Counters, Step


class Outcome(StrEnum):
    """How a request ended; the closed set of the metric's label."""

    FINISHED = "finished"
    REFUSED = "refused"  # malformed or beyond a limit
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """Seconds since its arrival; `ttft_s` and the token counts are as far as it came."""

    outcome: Outcome
    total_s: float
    ttft_s: float | None
    prompt_tokens: int
    completion_tokens: int
    last_token_s: float | None


@dataclass(frozen=True, slots=True)
class EngineWorked:
    """What the engine's counters gained."""

    added: Counters


@dataclass(frozen=True, slots=True)
class EngineStepped:
    """The engine did one pass for all the requests in it."""

    step: Step


@dataclass(frozen=True, slots=True)
class EngineRestarted:
    """The engine died and a new one is being started."""


Event = RequestEnded | EngineWorked | EngineStepped | EngineRestarted
Observer = Callable[[Event], None]
