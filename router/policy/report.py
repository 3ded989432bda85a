"""Writes what a policy would do with a request, for people and as JSON. Holds no content of the request."""

from collections.abc import Callable, Iterator

from router.plan import Plan, Refusal
from router.policy.policy import RuleTrace

# Puts a text in a colour, or leaves it as it is: paint("red", text).
Paint = Callable[[str, str], str]


def as_json(outcome: Plan | Refusal) -> dict[str, object]:
    """The same facts as `as_text`."""
    report: dict[str, object] = {
        "policy_hash": outcome.policy_hash,
        "floor": {
            "reach": outcome.floor.reach.label,
            "steps": outcome.floor.steps,
            "detections": outcome.floor.detections,
        },
        "rule": outcome.rule,
        "rules": [
            {"rule": t.rule, "matched": t.matched, "outcome": t.outcome, "condition": t.condition}
            for t in outcome.rules
        ],
        "backends": [
            {
                "backend": t.backend,
                "lane": t.lane,
                "reach": t.reach.label,
                "allowed": t.allowed,
                "reason": t.reason,
            }
            for t in outcome.backends
        ],
    }
    if isinstance(outcome, Refusal):
        return {**report, "refusal": outcome.reason, "message": outcome.message, "can_retry": outcome.can_retry}
    candidates = [
        {
            "backend": c.backend,
            "lane": c.lane,
            "reasons": c.reasons,
            "predicted_ttft_ms": _milliseconds(c.predicted_ttft_s),
            "predicted_total_ms": _milliseconds(c.predicted_total_s),
        }
        for c in outcome.candidates
    ]
    first = outcome.candidates[0]
    return {**report, "lane": first.lane, "reasons": first.reasons, "candidates": candidates}


def as_text(outcome: Plan | Refusal, paint: Paint) -> str:
    """Some lines, the outcome first."""
    return "\n".join(
        [
            *_outcome_lines(outcome, paint),
            f"policy   {outcome.policy_hash}",
            f"floor    {paint('bold', outcome.floor.reach.label)}",
            *(f"           {step}" for step in outcome.floor.steps),
            "rules",
            *_rule_lines(outcome, paint),
            "backends",
            *_backend_lines(outcome, paint),
        ]
    )


def _outcome_lines(outcome: Plan | Refusal, paint: Paint) -> Iterator[str]:
    if isinstance(outcome, Refusal):
        yield f"outcome  {paint('red', 'refused')}: {outcome.reason}" + (
            ", may be retried" if outcome.can_retry else ""
        )
        return
    first = outcome.candidates[0]
    yield f"outcome  {paint('green', first.lane)} by rule {outcome.rule}: {', '.join(first.reasons)}"
    if first.predicted_ttft_s is not None and first.predicted_total_s is not None:
        yield f"         first token in {first.predicted_ttft_s:.2f} s, all in {first.predicted_total_s:.1f} s at most"


def _rule_lines(outcome: Plan | Refusal, paint: Paint) -> Iterator[str]:
    width = max((len(trace.rule) for trace in (*outcome.rules, _DEFAULT)), default=0)
    for trace in outcome.rules:
        color = "red" if trace.outcome.startswith("error") else "green" if trace.matched else "dim"
        condition = " ".join(trace.condition.split())
        yield f"  {trace.rule:<{width}}  {paint(color, f'{trace.outcome:<11}')}  {condition}"
    if not any(trace.matched for trace in outcome.rules):
        yield f"  {_DEFAULT.rule:<{width}}  {paint('green', _DEFAULT.outcome)}"


_DEFAULT = RuleTrace("default", matched=True, condition="", outcome="applies")


def _backend_lines(outcome: Plan | Refusal, paint: Paint) -> Iterator[str]:
    for number, trace in enumerate(outcome.backends, start=1):
        place = f"{number}." if trace.allowed else "-"
        text = f"  {place:<3}{trace.backend:<8} reach {trace.reach.label:<13} {trace.reason}"
        yield text if trace.allowed else paint("dim", text)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
