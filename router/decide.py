"""Chooses where a request is answered. Pure: no clock, no I/O, no randomness.

Hard barriers take a backend out (floor, rule, capability, down, strict lateness); drawbacks only move it back
(late, full, short context). What is left is tried in order. An edge whose rates are unknown is expected to be slow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from router.plan import BackendTrace, Candidate, Plan, Refusal
from router.policy.facts import Facts, LaneFacts, absent_lane
from router.policy.policy import Policy, Verdict
from router.privacy.floor import Floor
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Lane
from router.signals.features import Features
from router.signals.predict import DEFAULT_MAX_TOKENS, Bounds, Prediction, expect, predict, prompt_tokens

__all__ = ["BackendTrace", "Candidate", "Plan", "Refusal", "decide"]

# Drawbacks, the lightest first: a late answer is better than a full queue, that better than a prompt that cannot fit.
EDGE_TOO_SLOW: Final = "edge_too_slow"
EDGE_FULL: Final = "edge_full"
EDGE_CONTEXT_TOO_SMALL: Final = "edge_context_too_small"
_DRAWBACKS: Final = (EDGE_TOO_SLOW, EDGE_FULL, EDGE_CONTEXT_TOO_SMALL)

# Barriers. Those of a lane are built as f"{lane}_down" and f"rule_forbids_{lane}".
FLOOR_FORBIDS_FLEET: Final = "floor_forbids_fleet"
FLOOR_FORBIDS_CLOUD: Final = "floor_forbids_cloud"
CAPABILITY: Final = "capability"
TOO_SLOW_STRICT: Final = "too_slow_strict"

# Beside EDGE_TOO_SLOW and the late reasons: a rate is unknown yet, so that the lateness is only assumed.
EDGE_UNMEASURED: Final = "edge_unmeasured"

# Why a late answer is given all the same.
LATE_BUT_PRIVATE: Final = "late_but_private"
LATE_BUT_NO_ALTERNATIVE: Final = "late_but_no_alternative"

# Refusals, beside TOO_SLOW_STRICT.
CAPABILITY_UNAVAILABLE: Final = "capability_unavailable"
NO_BACKEND_WITHIN_RULE: Final = "no_backend_within_rule"
NO_BACKEND_WITHIN_FLOOR: Final = "no_backend_within_floor"
NO_BACKEND_AVAILABLE: Final = "no_backend_available"


@dataclass(frozen=True, slots=True)
class _Option:
    """A backend with everything that speaks against it."""

    state: BackendState
    prediction: Prediction
    barrier: str | None
    drawback: str | None

    def trace(self, reason: str) -> BackendTrace:
        return BackendTrace(self.state.name, self.state.lane, self.state.reach, self.barrier is None, reason)


@dataclass(frozen=True, slots=True)
class _Case:
    """One request with all that is known for deciding it."""

    request: GenerationRequest
    features: Features
    policy: Policy
    floor: Floor
    bounds: Bounds
    max_tokens: int

    def prediction(self, state: BackendState) -> Prediction:
        return predict(state, self.num_prompt_tokens(state), self.max_tokens)

    def num_prompt_tokens(self, state: BackendState) -> int:
        return prompt_tokens(self.features.prompt_bytes, state)

    def is_in_time(self, state: BackendState) -> bool:
        """A cloud's times are not predicted; it counts as in time."""
        if state.lane == "cloud":
            return True
        return self.bounds.hold(expect(state, self.num_prompt_tokens(state), self.max_tokens))


def decide(
    request: GenerationRequest, features: Features, policy: Policy, floor: Floor, states: Sequence[BackendState]
) -> Plan | Refusal:
    """The backends to try for `request`, in order, or why there is none. Fallbacks stand inside the floor too."""
    max_tokens = DEFAULT_MAX_TOKENS if request.sampling.max_tokens is None else request.sampling.max_tokens
    case = _Case(request, features, policy, floor, policy.bounds(request.latency), max_tokens)
    verdict = policy.evaluate(_facts(case, states))
    if verdict.has_failed:
        floor = floor.tightened(Reach.DEVICE, f"rule {verdict.rule} failed")
    options = [_option(case, verdict, floor, state) for state in states]
    usable = sorted((option for option in options if option.barrier is None), key=lambda o: _rank(o, verdict))
    barred = [option for option in options if option.barrier is not None]
    if not usable:
        return _refusal(verdict, floor, policy, barred)
    candidates = tuple(_candidate(option, usable, barred, verdict, floor) for option in usable)
    traces = (
        *(option.trace(candidate.reasons[0]) for option, candidate in zip(usable, candidates, strict=True)),
        *(option.trace(str(option.barrier)) for option in barred),
    )
    return Plan(candidates, verdict.rule, floor, policy.hash, verdict.traces, traces)


def _facts(case: _Case, states: Sequence[BackendState]) -> Facts:
    edge, cloud = _lane_facts(case, states, "edge"), _lane_facts(case, states, "cloud")
    return Facts(
        request=case.request,
        num_messages=case.features.num_messages,
        prompt_tokens=case.num_prompt_tokens(edge.state),
        max_tokens=case.max_tokens,
        bounds=case.bounds,
        floor=case.floor,
        edge=edge,
        cloud=cloud,
    )


def _lane_facts(case: _Case, states: Sequence[BackendState], lane: Lane) -> LaneFacts:
    of_lane = [state for state in states if state.lane == lane]
    if not of_lane:
        return absent_lane(lane)
    state = next((state for state in of_lane if state.available), of_lane[0])
    return LaneFacts(state, case.prediction(state), case.is_in_time(state))


def _option(case: _Case, verdict: Verdict, floor: Floor, state: BackendState) -> _Option:
    barrier = _barrier(case, verdict, floor, state)
    return _Option(state, case.prediction(state), barrier, _drawback(case, state))


def _barrier(case: _Case, verdict: Verdict, floor: Floor, state: BackendState) -> str | None:
    """What takes the backend out; the floor comes first, so that nothing hides it."""
    if state.reach > floor.reach:
        return FLOOR_FORBIDS_FLEET if state.reach is Reach.FLEET else FLOOR_FORBIDS_CLOUD
    if not verdict.choice.allows(state.lane):
        return f"rule_forbids_{state.lane}"
    if not case.policy.is_capable(state.capability, case.request.min_capability):
        return CAPABILITY
    if not state.available:
        return f"{state.lane}_down"
    if case.request.latency.strict and not case.is_in_time(state):
        return TOO_SLOW_STRICT
    return None


def _drawback(case: _Case, state: BackendState) -> str | None:
    """What moves the backend back; the gravest one."""
    if state.lane == "cloud":
        return None
    if 0 < state.context_tokens <= case.num_prompt_tokens(state):
        return EDGE_CONTEXT_TOO_SMALL
    if 0 < state.queue_limit <= state.queue_depth:
        return EDGE_FULL
    return None if case.is_in_time(state) else EDGE_TOO_SLOW


def _rank(option: _Option, verdict: Verdict) -> tuple[int, bool]:
    severity = 0 if option.drawback is None else 1 + _DRAWBACKS.index(option.drawback)
    return severity, option.state.lane != verdict.choice.lane


def _candidate(
    option: _Option, usable: Sequence[_Option], barred: Sequence[_Option], verdict: Verdict, floor: Floor
) -> Candidate:
    state = option.state
    reasons = (
        *_lateness(option, floor),
        *_detour(option, usable, barred, verdict),
        *(["fallback"] if option is not usable[0] else []),
        verdict.choice.reason,
    )
    prediction = option.prediction
    return Candidate(
        backend=state.name,
        lane=state.lane,
        reach=state.reach,
        model=state.model,
        reasons=tuple(dict.fromkeys(reasons)),
        predicted_ttft_s=prediction.ttft_s,
        predicted_total_s=prediction.total_s,
    )


def _lateness(option: _Option, floor: Floor) -> list[str]:
    """Why a backend answers although it is late: everything better is out of reach, or has failed before."""
    if option.drawback != EDGE_TOO_SLOW:
        return []
    return [LATE_BUT_PRIVATE if floor.reach < Reach.CLOUD else LATE_BUT_NO_ALTERNATIVE, *_unmeasured(option)]


def _detour(option: _Option, usable: Sequence[_Option], barred: Sequence[_Option], verdict: Verdict) -> list[str]:
    """Why the lane that the rule prefers does not answer."""
    preferred = verdict.choice.lane
    if option.state.lane == preferred:
        return []
    for other in (*usable, *barred):
        if other.state.lane == preferred:
            return _objections(other)
    return [f"no_{preferred}"]


def _objections(option: _Option) -> list[str]:
    reason = option.drawback if option.barrier in (None, TOO_SLOW_STRICT) else option.barrier
    if reason is None:
        return []
    return [reason, *(_unmeasured(option) if reason == EDGE_TOO_SLOW else [])]


def _unmeasured(option: _Option) -> list[str]:
    """Says that lateness is not predicted but feared."""
    return [EDGE_UNMEASURED] if option.prediction.ttft_s is None else []


def _refusal(verdict: Verdict, floor: Floor, policy: Policy, barred: Sequence[_Option]) -> Refusal:
    barriers = {str(option.barrier) for option in barred}
    reason = _refusal_reason(barriers)
    detail = ", ".join(f"{option.state.name}: {option.barrier}" for option in barred) or "none is configured"
    return Refusal(
        reason=reason,
        message=f"no backend may or can answer this request (floor {floor.reach.label}; {detail})",
        can_retry=bool(barriers & {TOO_SLOW_STRICT, "edge_down", "cloud_down"}),
        rule=verdict.rule,
        floor=floor,
        policy_hash=policy.hash,
        rules=verdict.traces,
        backends=tuple(option.trace(str(option.barrier)) for option in barred),
    )


def _refusal_reason(barriers: set[str]) -> str:
    """The barrier that the caller or the policy's author can do most about."""
    if TOO_SLOW_STRICT in barriers:
        return TOO_SLOW_STRICT
    if CAPABILITY in barriers:
        return CAPABILITY_UNAVAILABLE
    if barriers & {"rule_forbids_edge", "rule_forbids_cloud"}:
        return NO_BACKEND_WITHIN_RULE
    if barriers & {FLOOR_FORBIDS_FLEET, FLOOR_FORBIDS_CLOUD}:
        return NO_BACKEND_WITHIN_FLOOR
    return NO_BACKEND_AVAILABLE
