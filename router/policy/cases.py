"""Runs a policy's own test cases. Pure: the lanes' states are those that a case describes."""

from collections.abc import Sequence
from dataclasses import dataclass

from router.decide import Plan, Refusal, decide
from router.policy.policy import Policy
from router.policy.schema import LaneModel, TestModel, TestRequestModel
from router.privacy.floor import floor_of
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Lane, LatencyTolerance, Message, Sampling
from router.signals.features import Features, features_of
from router.signals.predict import DEFAULT_BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case. `differences`: each as "lane: expected edge, got cloud"; none if it passed."""

    name: str
    index: int
    differences: tuple[str, ...]

    @property
    def has_passed(self) -> bool:
        return not self.differences


def run_cases(policy: Policy, cases: Sequence[TestModel]) -> tuple[CaseResult, ...]:
    """In the order of the file."""
    return tuple(
        CaseResult(case.name, index, tuple(_differences(case, _outcome(policy, case))))
        for index, case in enumerate(cases)
    )


def _outcome(policy: Policy, case: TestModel) -> Plan | Refusal:
    request = _request(case.request)
    features = features_of(request)
    if case.request.prompt_tokens is not None:
        features = Features(int(case.request.prompt_tokens * DEFAULT_BYTES_PER_TOKEN), features.num_messages)
    states = [lane_state("edge", case.edge), lane_state("cloud", case.cloud)]
    return decide(request, features, policy, floor_of(request, policy.privacy), states)


def _request(model: TestRequestModel) -> GenerationRequest:
    return GenerationRequest(
        messages=(Message("user", model.text),),
        sampling=Sampling(max_tokens=model.max_tokens),
        tags=tuple(model.tags),
        latency=LatencyTolerance(
            ttft_s=_seconds(model.latency.ttft_ms),
            total_s=_seconds(model.latency.total_ms),
            latency_class=model.latency.latency_class,
            strict=model.latency.strict,
        ),
        min_capability=model.min_capability,
        tenant=model.tenant,
        max_reach=None if model.max_reach is None else Reach.from_label(model.max_reach),
    )


def lane_state(lane: Lane, model: LaneModel) -> BackendState:
    """The state that a case, or a command's option, describes; the backend has the lane's name."""
    fields = model.model_dump(exclude={"reach"})
    reach = model.reach or ("device" if lane == "edge" else "cloud")
    return BackendState(name=lane, lane=lane, reach=Reach.from_label(reach), **fields)


def _differences(case: TestModel, outcome: Plan | Refusal) -> list[str]:
    expected = case.expect.model_dump(exclude_none=True)
    actual = _actual(outcome)
    return [f"{key}: expected {value}, got {actual[key]}" for key, value in expected.items() if actual[key] != value]


def _actual(outcome: Plan | Refusal) -> dict[str, str]:
    if isinstance(outcome, Refusal):
        lane, refusal, reason = "none (refused)", outcome.reason, outcome.reason
    else:
        first = outcome.candidates[0]
        lane, refusal, reason = first.lane, "none", first.reasons[0]
    return {
        "lane": lane,
        "refusal": refusal,
        "rule": outcome.rule,
        "reason": reason,
        "floor": outcome.floor.reach.label,
    }


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
