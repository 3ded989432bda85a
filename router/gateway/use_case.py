"""The gateway's one path, whatever protocol a request came by: check, floor, policy, decide, send, report."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from router.backends.backend import Finished, TextDelta
from router.backends.failure import BackendError
from router.decide import BackendTrace, Candidate, Plan, Refusal, decide
from router.errors import RefusedError, RouterError
from router.gateway import limits
from router.gateway.answer import Completion, Decision
from router.gateway.report import Report
from router.logging import Logger
from router.metrics import Metrics
from router.policy.policy import Policy, RuleTrace
from router.privacy.detect import scan
from router.privacy.floor import Detector, floor_of
from router.request import BackendState, GenerationRequest
from router.resilience.attempts import Answer, Attempts
from router.signals.features import features_of

# A scan takes about 0.1 us per byte, in bad cases 0.4: above this, a thread does it, so that other answers flow on.
INLINE_SCAN_BYTES: Final = 64 << 10


class PolicySource(Protocol):
    """Where the policy in force comes from; it may change between two requests, never within one."""

    @property
    def current(self) -> Policy: ...

    @property
    def error(self) -> str:
        """Why the file's newer content was refused; empty while the policy in force is the file's."""


class TryLaterError(RefusedError):
    """A refusal that may not hold for long: a lane is down or too slow now."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a request now: a decision or a refusal, and the traces of both."""

    decision: Decision | None
    refusal: str
    rules: tuple[RuleTrace, ...]
    backends: tuple[BackendTrace, ...]


def new_decision_id() -> str:
    return secrets.token_hex(16)


class Gateway:
    """Serves all requests of the process in one event loop."""

    def __init__(
        self,
        attempts: Attempts,
        policies: PolicySource,
        metrics: Metrics,
        log: Logger,
        detect: Detector = scan,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempts = attempts
        self._policies = policies
        self._metrics = metrics
        self._log = log
        self._detect = detect
        self._clock = clock
        self.is_accepting = True

    @property
    def policy_hash(self) -> str:
        return self._policies.current.hash

    @property
    def policy_error(self) -> str:
        return self._policies.error

    def states(self) -> tuple[BackendState, ...]:
        return self._attempts.states()

    async def generate(
        self, request: GenerationRequest, decision_id: str, time_left_s: float | None
    ) -> AsyncGenerator[Decision | TextDelta | Completion, None]:
        """The decision once the first text has come, then the text, then the completion. Close it to cancel.

        Raises: RequestError, RefusedError, EgressDenied, AttemptsError, DeadlineError; after the decision
        BackendError or DeadlineError: an answer that began is never continued by another backend.
        """
        report = Report(self._metrics, self._log, self._clock, decision_id, request.tenant)
        deadline = None if time_left_s is None else self._clock() + time_left_s
        try:
            limits.check(request)
            plan = await self._plan(request)
            if isinstance(plan, Refusal):
                report.refused(plan)
                raise _refused(plan)
            report.planned(plan)
            answer = await self._attempts.open(plan.candidates, plan.floor, request, decision_id, deadline)
            # From here on, not from the first event: who leaves with the decision must free the backend too.
            async with aclosing(answer.rest):
                decision = self._decision(plan, answer, decision_id)
                report.decided(decision)
                yield decision
                async with aclosing(self._events(answer, report)) as events:
                    async for event in events:
                        yield event
        except RouterError as exc:
            report.failed(exc)
            raise
        finally:
            report.close()

    async def explain(self, request: GenerationRequest, decision_id: str) -> Explanation:
        """What `generate` would do now; sends nothing. Raises RequestError."""
        limits.check(request)
        plan = await self._plan(request)
        if isinstance(plan, Refusal):
            return Explanation(None, f"{plan.reason}: {plan.message}", plan.rules, plan.backends)
        decision = _decision(plan, plan.candidates[0], plan.candidates[0].model, decision_id, ())
        return Explanation(decision, "", plan.rules, plan.backends)

    async def _plan(self, request: GenerationRequest) -> Plan | Refusal:
        policy = self._policies.current
        features = features_of(request)
        if features.prompt_bytes <= INLINE_SCAN_BYTES:
            floor = floor_of(request, policy.privacy, self._detect)
        else:
            floor = await asyncio.to_thread(floor_of, request, policy.privacy, self._detect)
        return decide(request, features, policy, floor, self._attempts.states())

    def _decision(self, plan: Plan, answer: Answer, decision_id: str) -> Decision:
        candidate = next(c for c in plan.candidates if c.backend == answer.backend)
        # A cloud's default model has no name before it answers.
        model = next(state.model for state in self._attempts.states() if state.name == answer.backend)
        return _decision(plan, candidate, model or candidate.model, decision_id, answer.failures)

    async def _events(self, answer: Answer, report: Report) -> AsyncGenerator[TextDelta | Completion, None]:
        report.first_text()
        if isinstance(answer.first, Finished):
            yield report.finished(answer.first)
            return
        yield answer.first
        async for event in answer.rest:
            if isinstance(event, Finished):
                yield report.finished(event)
                return
            yield event


def _refused(refusal: Refusal) -> RefusedError:
    kind = TryLaterError if refusal.can_retry else RefusedError
    return kind(refusal.message, refusal.reason)


def _decision(
    plan: Plan, candidate: Candidate, model: str, decision_id: str, failures: tuple[BackendError, ...]
) -> Decision:
    lanes = {c.backend: c.lane for c in plan.candidates}
    failed = tuple(f"{lanes[failure.backend]}_{failure.cause}" for failure in failures)
    return Decision(
        decision_id=decision_id,
        lane=candidate.lane,
        backend=candidate.backend,
        model=model,
        rule=plan.rule,
        reasons=tuple(dict.fromkeys((*candidate.reasons, *failed))),
        floor=plan.floor.reach,
        floor_steps=plan.floor.steps,
        detections=plan.floor.detections,
        policy_hash=plan.policy_hash,
        predicted_ttft_s=candidate.predicted_ttft_s,
        predicted_total_s=candidate.predicted_total_s,
        fallbacks=tuple(f"{failure.backend}: {failure.cause}" for failure in failures),
    )
