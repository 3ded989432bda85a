"""Tries a plan's backends in order until one answers: fallback only before the first text, only inside the floor."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from router.backends.backend import Finished, TextDelta
from router.backends.failure import BackendError, Cause
from router.backends.gate import EgressGate
from router.decide import Candidate
from router.errors import RouterError
from router.privacy.floor import Floor
from router.request import BackendState, GenerationRequest
from router.resilience.circuit import Circuit, CircuitLimits

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one attempt may take. An edge reads a long prompt from disk for a while: its limit grows with the
    prediction, and without one it is generous."""

    first_text_s: float = 60.0
    edge_first_text_s: float = 600.0
    edge_first_text_factor: float = 4.0
    # Between two pieces of an answer.
    stall_s: float = 120.0
    # Above what a million tokens, the most that may be asked for, come to: a server that never ends must not fill our
    # memory.
    answer_chars: int = 32 << 20
    circuit: CircuitLimits = field(default_factory=CircuitLimits)


class DeadlineError(RouterError):
    """The caller's deadline passed."""


class AttemptsError(RouterError):
    """No backend of the plan answered; `failures` holds what each said, in order."""

    def __init__(self, failures: Sequence[BackendError]) -> None:
        super().__init__("; ".join(map(str, failures)))
        self.failures = tuple(failures)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose first piece has come, so that its backend is settled."""

    backend: str
    failures: tuple[BackendError, ...]
    first: TextDelta | Finished
    rest: AsyncGenerator[TextDelta | Finished, None]


class Attempts:
    """Holds a circuit per backend; one instance serves all requests."""

    def __init__(
        self,
        gate: EgressGate,
        limits: Limits = Limits(),
        clock: Clock = time.monotonic,
        on_failure: Callable[[BackendError], None] = lambda _: None,
    ) -> None:
        self._gate = gate
        self._limits = limits
        self._clock = clock
        self._on_failure = on_failure
        self._circuits: Mapping[str, Circuit] = {state.name: Circuit(limits.circuit) for state in gate.states()}

    def states(self) -> tuple[BackendState, ...]:
        """The backends as a decision should see them: one whose circuit is open counts as unavailable."""
        now = self._clock()
        return tuple(
            replace(state, available=False, cause="it failed repeatedly and is left alone for a moment")
            if state.available and self._circuits[state.name].is_closed_to_requests(now)
            else state
            for state in self._gate.states()
        )

    async def open(
        self,
        candidates: Sequence[Candidate],
        floor: Floor,
        request: GenerationRequest,
        decision_id: str,
        deadline: float | None,
    ) -> Answer:
        """The first candidate's answer that begins. `deadline` is a time of the clock.

        Raises: AttemptsError, DeadlineError, EgressDenied. The answer's `rest` must be closed; it raises
        BackendError or DeadlineError if the answer breaks off.
        """
        failures: list[BackendError] = []
        for candidate in candidates:
            events = self._attempt(candidate, floor, request, decision_id, deadline)
            try:
                first = await anext(events)
            except BackendError as exc:
                failures.append(exc)
                self._on_failure(exc)
                if exc.cause is Cause.REJECTED:
                    # The request is at fault: another server would only receive what it cannot serve either.
                    break
            else:
                return Answer(candidate.backend, tuple(failures), first, events)
        raise AttemptsError(failures)

    async def _attempt(
        self,
        candidate: Candidate,
        floor: Floor,
        request: GenerationRequest,
        decision_id: str,
        deadline: float | None,
    ) -> AsyncGenerator[TextDelta | Finished, None]:
        """One send, with its time limits, reported to the backend's circuit."""
        circuit = self._circuits[candidate.backend]
        stream = self._gate.send(candidate.backend, floor, request, decision_id)
        circuit.started(self._clock())
        verdict: Callable[[float], None] = circuit.undecided
        num_chars = 0
        try:
            async with aclosing(stream):
                limit_s = self._first_text_limit_s(candidate)
                while (event := await self._next(candidate, stream, limit_s, deadline)) is not None:
                    if isinstance(event, Finished):
                        verdict = circuit.succeeded
                    else:
                        circuit.answered()
                        num_chars += len(event.text)
                        self._check_length(candidate, num_chars)
                    yield event
                    limit_s = self._limits.stall_s
        except BackendError as exc:
            if exc.cause.is_health:
                verdict = circuit.failed
            raise
        finally:
            verdict(self._clock())

    async def _next(
        self,
        candidate: Candidate,
        stream: AsyncGenerator[TextDelta | Finished, None],
        limit_s: float,
        deadline: float | None,
    ) -> TextDelta | Finished | None:
        now = self._clock()
        left_s = limit_s if deadline is None else min(limit_s, deadline - now)
        try:
            async with asyncio.timeout(left_s):
                return await anext(stream, None)
        except TimeoutError:
            if left_s < limit_s:
                raise DeadlineError("the caller's deadline passed") from None
            raise BackendError(candidate.backend, Cause.TIMED_OUT, f"nothing came for {limit_s:.0f} s") from None

    def _check_length(self, candidate: Candidate, num_chars: int) -> None:
        if num_chars > self._limits.answer_chars:
            detail = f"its answer has more than {self._limits.answer_chars} characters"
            raise BackendError(candidate.backend, Cause.BROKEN, detail)

    def _first_text_limit_s(self, candidate: Candidate) -> float:
        limits = self._limits
        if candidate.lane != "edge":
            return limits.first_text_s
        if candidate.predicted_ttft_s is None:
            return limits.edge_first_text_s
        return limits.first_text_s + limits.edge_first_text_factor * candidate.predicted_ttft_s
