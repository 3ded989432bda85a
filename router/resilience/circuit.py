"""A circuit per backend: after repeated failures it is left alone for a while, then tried with one request. Pure."""

import enum
from dataclasses import dataclass


class Phase(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    # One request is out to see whether the backend is back.
    PROBING = "probing"


@dataclass(frozen=True, slots=True)
class CircuitLimits:
    """`failures_to_open`: failures in a row. `open_s`: how long it is left alone; `probe_s`: how long one probe may
    keep the others waiting, so that a slow first token does not close the backend to everybody."""

    failures_to_open: int = 3
    open_s: float = 5.0
    probe_s: float = 60.0


class Circuit:
    """Times are passed in, in seconds of one monotonic clock."""

    def __init__(self, limits: CircuitLimits) -> None:
        self._limits = limits
        self._phase = Phase.CLOSED
        self._failures = 0
        self._since = 0.0

    def is_closed_to_requests(self, now: float) -> bool:
        waited = now - self._since
        match self._phase:
            case Phase.CLOSED:
                return False
            case Phase.OPEN:
                return waited < self._limits.open_s
            case Phase.PROBING:
                return waited < self._limits.probe_s

    def started(self, now: float) -> None:
        """A request is being sent; where requests were kept out it is the probe."""
        if self._phase is not Phase.CLOSED:
            self._phase, self._since = Phase.PROBING, now

    def answered(self) -> None:
        """The first text came: others may be sent too. Whether the whole answer comes is still open."""
        self._phase = Phase.CLOSED

    def succeeded(self, _now: float) -> None:
        self._phase, self._failures = Phase.CLOSED, 0

    def failed(self, now: float) -> None:
        self._failures += 1
        if self._phase is Phase.PROBING or self._failures >= self._limits.failures_to_open:
            self._phase, self._since = Phase.OPEN, now

    def undecided(self, now: float) -> None:
        """A request ended without saying anything about the backend's health, such as by the caller's leaving."""
        if self._phase is Phase.PROBING:
            # The time apart has already passed: the next request probes again.
            self._phase, self._since = Phase.OPEN, now - self._limits.open_s
