"""What becomes of one request, for metrics, the log, and the caller's timings. Never content."""

from collections.abc import Callable

from router.backends.backend import Finished
from router.backends.failure import BackendError
from router.decide import FLOOR_FORBIDS_CLOUD, FLOOR_FORBIDS_FLEET, Plan, Refusal
from router.errors import EgressDenied, RefusedError, RequestError, RouterError
from router.gateway.answer import Completion, Decision
from router.logging import Logger
from router.metrics import Metrics
from router.resilience.attempts import AttemptsError, DeadlineError


class Report:
    """One request's; `close` when it ended, however it did."""

    def __init__(
        self, metrics: Metrics, log: Logger, clock: Callable[[], float], decision_id: str, tenant: str
    ) -> None:
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._started = clock()
        self._fields: dict[str, object] = {"decision_id": decision_id, "tenant": tenant}
        self._decision: Decision | None = None
        self._floor = ""
        self._ttft_s = 0.0
        # What stands if nobody says otherwise: the caller left and the generator was closed.
        self._outcome = "cancelled"
        metrics.request_started()

    def planned(self, plan: Plan) -> None:
        self._floor = plan.floor.reach.label
        self._denials(plan)

    def refused(self, refusal: Refusal) -> None:
        self._denials(refusal)
        self._fields |= {"rule": refusal.rule, "floor": refusal.floor.reach.label, "policy": refusal.policy_hash}

    def decided(self, decision: Decision) -> None:
        self._decision = decision
        self._metrics.decided(decision.lane, decision.rule, decision.reasons[0], decision.predicted_ttft_s)
        self._fields |= {
            "lane": decision.lane,
            "backend": decision.backend,
            "model": decision.model,
            "rule": decision.rule,
            "reasons": decision.reasons,
            "floor": decision.floor.label,
            "detections": decision.detections,
            "policy": decision.policy_hash,
            "fallbacks": decision.fallbacks,
        }

    def first_text(self) -> None:
        assert self._decision is not None  # noqa: S101 - `decided` comes first
        self._ttft_s = self._clock() - self._started
        self._fields["ttft_s"] = round(self._ttft_s, 6)
        self._metrics.first_text(self._decision.lane, self._decision.model, self._ttft_s)

    def finished(self, end: Finished) -> Completion:
        assert self._decision is not None  # noqa: S101 - `decided` comes first
        total_s = self._clock() - self._started
        self._outcome = ""
        if end.prompt_tokens is not None and end.completion_tokens is not None:
            decision, decode_s = self._decision, total_s - self._ttft_s
            self._metrics.usage(decision.lane, decision.model, end.prompt_tokens, end.completion_tokens, decode_s)
            self._fields |= {"prompt_tokens": end.prompt_tokens, "completion_tokens": end.completion_tokens}
        return Completion(
            finish_reason=end.finish_reason,
            prompt_tokens=end.prompt_tokens,
            completion_tokens=end.completion_tokens,
            ttft_s=self._ttft_s,
            total_s=total_s,
            reused_tokens=end.reused_tokens,
            deviations=end.deviations,
        )

    def failed(self, error: RouterError) -> None:
        self._outcome = outcome_of(error)
        if self._decision is None:
            self._metrics.refused(self._outcome)
        if isinstance(error, EgressDenied):
            self._metrics.egress_denied(self._floor, error.cause)
            self._log.error("egress_denied", cause=error.cause, **self._fields)
        if isinstance(error, AttemptsError):
            self._fields["fallbacks"] = [f"{failure.backend}: {failure.cause}" for failure in error.failures]

    def close(self) -> None:
        duration_s = self._clock() - self._started
        lane, model = ("none", "") if self._decision is None else (self._decision.lane, self._decision.model)
        self._metrics.finished(lane, model, self._outcome, duration_s)
        self._metrics.request_ended()
        self._log.info(
            "request_ended", outcome=self._outcome or "answered", duration_s=round(duration_s, 6), **self._fields
        )

    def _denials(self, plan: Plan | Refusal) -> None:
        """Backends that the floor kept out of the plan."""
        for trace in plan.backends:
            # An allowed one may have such a reason too: it answers because another may not.
            if not trace.allowed and trace.reason in (FLOOR_FORBIDS_FLEET, FLOOR_FORBIDS_CLOUD):
                self._metrics.egress_denied(plan.floor.reach.label, trace.reason)


def outcome_of(error: RouterError) -> str:
    """One word from a closed set, for metrics and the log."""
    match error:
        case RefusedError():
            return error.reason
        case RequestError():
            return "invalid_request"
        case DeadlineError():
            return "deadline_exceeded"
        case AttemptsError():
            return f"backend_{error.failures[-1].cause}"
        case BackendError():
            return f"backend_{error.cause}"
        case EgressDenied():
            return "egress_denied"
    return "internal"
