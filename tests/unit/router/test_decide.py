"""Decisions: one table row per situation."""

from typing import Any

import pytest

from router.decide import Plan, Refusal, decide
from router.policy.condition import Condition
from router.policy.policy import Choice, Policy, Preference, Rule
from router.privacy.floor import PrivacyRules, floor_of
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, LatencyTolerance, Message, Sampling
from router.signals.features import features_of
from router.signals.predict import Bounds

FAST = {"prefill_tokens_per_second": 1000.0, "decode_tokens_per_second": 100.0}
SLOW = {"prefill_tokens_per_second": 1.0, "decode_tokens_per_second": 0.1}
FULL = {**FAST, "queue_depth": 4, "queue_limit": 4}
# The prompt has 20 bytes, which count as 5 tokens; the answer needs room too.
SHORT = {**FAST, "context_tokens": 5}
JUST_ENOUGH = {**FAST, "context_tokens": 6}


def state(lane: str, **fields: Any) -> BackendState:
    reach = fields.pop("reach", Reach.DEVICE if lane.startswith("edge") else Reach.CLOUD)
    name = fields.pop("name", lane)
    return BackendState(
        name=name, lane="edge" if lane == "edge" else "cloud", reach=reach, **{"available": True, **fields}
    )


def policy(prefer: Preference = "edge", *rules: Rule) -> Policy:
    return Policy(
        source="test",
        digest="0" * 64,
        privacy=PrivacyRules(),
        capabilities=("basic", "frontier"),
        latency_classes={"interactive": Bounds(ttft_s=2.0), "batch": Bounds(total_s=600.0)},
        rules=rules,
        default=Choice(prefer, "preferred"),
    )


def outcome(
    *states: BackendState, prefer: Preference = "edge", rules: tuple[Rule, ...] = (), **fields: Any
) -> Plan | Refusal:
    request = GenerationRequest(messages=(Message("user", "Why is the sky blue?"),), **fields)
    chosen = policy(prefer, *rules)
    return decide(request, features_of(request), chosen, floor_of(request, chosen.privacy), states)


def brief(result: Plan | Refusal) -> list[str]:
    """Each candidate as "backend reason, reason", or the refusal."""
    if isinstance(result, Refusal):
        return [f"refused {result.reason}"]
    return [f"{c.backend} {', '.join(c.reasons)}" for c in result.candidates]


PRIVATE: dict[str, Any] = {"tags": ("phi",)}
HURRY: dict[str, Any] = {"latency": LatencyTolerance(ttft_s=1.0)}
STRICT: dict[str, Any] = {"latency": LatencyTolerance(ttft_s=1.0, strict=True)}
FRONTIER: dict[str, Any] = {"min_capability": "frontier"}

E, C = "edge", "cloud"
MATRIX: list[tuple[str, Preference, dict[str, Any], dict[str, Any], dict[str, Any], list[str]]] = [
    # name, prefer, edge, cloud, request, expected
    ("both up", "edge", FAST, {}, {}, ["edge preferred", "cloud fallback, preferred"]),
    ("both up", "cloud", FAST, {}, {}, ["cloud preferred", "edge fallback, preferred"]),
    ("both up", "edge_only", FAST, {}, {}, ["edge preferred"]),
    ("both up", "cloud_only", FAST, {}, {}, ["cloud preferred"]),
    ("edge down", "edge", {"available": False}, {}, {}, ["cloud edge_down, preferred"]),
    ("edge down", "edge_only", {"available": False}, {}, {}, ["refused no_backend_within_rule"]),
    ("edge down", "cloud", {"available": False}, {}, {}, ["cloud preferred"]),
    ("cloud down", "edge", FAST, {"available": False}, {}, ["edge preferred"]),
    ("cloud down", "cloud", FAST, {"available": False}, {}, ["edge cloud_down, preferred"]),
    ("cloud down", "cloud_only", FAST, {"available": False}, {}, ["refused no_backend_within_rule"]),
    ("both down", "edge", {"available": False}, {"available": False}, {}, ["refused no_backend_available"]),
    ("private", "edge", FAST, {}, PRIVATE, ["edge preferred"]),
    ("private", "cloud", FAST, {}, PRIVATE, ["edge floor_forbids_cloud, preferred"]),
    ("private", "cloud_only", FAST, {}, PRIVATE, ["refused no_backend_within_rule"]),
    ("private, edge down", "edge", {"available": False}, {}, PRIVATE, ["refused no_backend_within_floor"]),
    ("private, edge down", "cloud", {"available": False}, {}, PRIVATE, ["refused no_backend_within_floor"]),
    ("slow", "edge", SLOW, {}, {}, ["edge preferred", "cloud fallback, preferred"]),
    (
        "slow, in a hurry",
        "edge",
        SLOW,
        {},
        HURRY,
        ["cloud edge_too_slow, preferred", "edge late_but_no_alternative, fallback, preferred"],
    ),
    ("slow, strict", "edge", SLOW, {}, STRICT, ["cloud edge_too_slow, preferred"]),
    ("slow, strict", "cloud", SLOW, {}, STRICT, ["cloud preferred"]),
    ("slow, private, in a hurry", "edge", SLOW, {}, {**PRIVATE, **HURRY}, ["edge late_but_private, preferred"]),
    (
        "slow, private, in a hurry",
        "cloud",
        SLOW,
        {},
        {**PRIVATE, **HURRY},
        ["edge late_but_private, floor_forbids_cloud, preferred"],
    ),
    ("slow, private, strict", "edge", SLOW, {}, {**PRIVATE, **STRICT}, ["refused too_slow_strict"]),
    (
        "slow, cloud down",
        "edge",
        SLOW,
        {"available": False},
        HURRY,
        ["edge late_but_no_alternative, preferred"],
    ),
    ("slow, edge only", "edge_only", SLOW, {}, HURRY, ["edge late_but_no_alternative, preferred"]),
    ("slow, edge only, strict", "edge_only", SLOW, {}, STRICT, ["refused too_slow_strict"]),
    (
        "unmeasured, in a hurry",
        "edge",
        {},
        {},
        HURRY,
        [
            "cloud edge_too_slow, edge_unmeasured, preferred",
            "edge late_but_no_alternative, edge_unmeasured, fallback, preferred",
        ],
    ),
    (
        "unmeasured, private, in a hurry",
        "edge",
        {},
        {},
        {**PRIVATE, **HURRY},
        ["edge late_but_private, edge_unmeasured, preferred"],
    ),
    (
        "unmeasured, with patience",
        "edge",
        {},
        {},
        {"latency": LatencyTolerance(ttft_s=5.0)},
        ["edge preferred", "cloud fallback, preferred"],
    ),
    ("unmeasured, no bound", "edge", {}, {}, {}, ["edge preferred", "cloud fallback, preferred"]),
    ("full", "edge", FULL, {}, {}, ["cloud edge_full, preferred", "edge fallback, preferred"]),
    ("full, private", "edge", FULL, {}, PRIVATE, ["edge preferred"]),
    (
        "short context",
        "edge",
        SHORT,
        {},
        {},
        ["cloud edge_context_too_small, preferred", "edge fallback, preferred"],
    ),
    ("just enough context", "edge", JUST_ENOUGH, {}, {}, ["edge preferred", "cloud fallback, preferred"]),
    ("capable cloud", "edge", {**FAST, "capability": "basic"}, {"capability": "frontier"}, FRONTIER, [
        "cloud capability, preferred"
    ]),
    ("capable edge", "cloud", {**FAST, "capability": "frontier"}, {}, FRONTIER, ["edge capability, preferred"]),
    ("none capable", "edge", FAST, {"capability": "basic"}, FRONTIER, ["refused capability_unavailable"]),
    ("unknown class", "edge", FAST, {"capability": "frontier"}, {"min_capability": "divine"}, [
        "refused capability_unavailable"
    ]),
    ("private, incapable", "edge", FAST, {"capability": "frontier"}, {**FRONTIER, **PRIVATE}, [
        "refused capability_unavailable"
    ]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("prefer", "edge", "cloud", "fields", "expected"),
    [row[1:] for row in MATRIX],
    ids=[f"{row[0]}, {row[1]}" for row in MATRIX],
)
def test_matrix(
    prefer: Preference, edge: dict[str, Any], cloud: dict[str, Any], fields: dict[str, Any], expected: list[str]
) -> None:
    assert brief(outcome(state(E, **edge), state(C, **cloud), prefer=prefer, **fields)) == expected


def test_without_backends_nothing_answers() -> None:
    result = outcome()
    assert isinstance(result, Refusal)
    assert (result.reason, result.can_retry) == ("no_backend_available", False)
    assert "none is configured" in result.message


@pytest.mark.parametrize("lane", [E, C])
def test_a_lane_that_is_not_configured_is_named(lane: str) -> None:
    prefer: Preference = "cloud" if lane == E else "edge"
    assert brief(outcome(state(lane, **FAST), prefer=prefer)) == [f"{lane} no_{prefer}, preferred"]


def test_an_edge_on_another_machine_is_beyond_the_device() -> None:
    far = state(E, reach=Reach.FLEET, **FAST)
    assert brief(outcome(far, tags=("internal",))) == ["edge preferred"]
    refused = outcome(far, state(C), tags=("phi",))
    assert brief(refused) == ["refused no_backend_within_floor"]
    assert [trace.reason for trace in refused.backends] == ["floor_forbids_fleet", "floor_forbids_cloud"]


def test_a_cloud_that_needs_masking_is_no_cloud_for_masked_requests() -> None:
    assert brief(outcome(state(C), max_reach=Reach.CLOUD_MASKED)) == ["refused no_backend_within_floor"]


def test_backends_of_a_lane_keep_their_configured_order_but_the_late_come_last() -> None:
    slow, fast, second = state(E, name="a", **SLOW), state(E, name="b", **FAST), state(E, name="c", **FAST)
    assert [c.backend for c in plan(outcome(slow, fast, second, state(C), **HURRY)).candidates] == [
        "b",
        "c",
        "cloud",
        "a",
    ]
    assert [c.backend for c in plan(outcome(slow, fast, second, state(C))).candidates] == ["a", "b", "c", "cloud"]


def plan(result: Plan | Refusal) -> Plan:
    assert isinstance(result, Plan)
    return result


@pytest.mark.parametrize(
    ("latency", "lane"),
    [
        (LatencyTolerance(latency_class="interactive"), C),
        (LatencyTolerance(latency_class="interactive", ttft_s=1e6), E),
        (LatencyTolerance(latency_class="batch"), C),
        (LatencyTolerance(latency_class="background"), E),
        (LatencyTolerance(total_s=10.0), C),
        (LatencyTolerance(ttft_s=100.0), E),
    ],
)
def test_bounds_come_from_the_request_then_from_its_class(latency: LatencyTolerance, lane: str) -> None:
    assert plan(outcome(state(E, **SLOW), state(C), latency=latency)).candidates[0].lane == lane


def test_predictions_stand_on_the_candidate() -> None:
    first = plan(outcome(state(E, **FAST), sampling=Sampling(max_tokens=101))).candidates[0]
    assert first.predicted_ttft_s == pytest.approx(5 / 1000 + 0.01)
    assert first.predicted_total_s == pytest.approx(5 / 1000 + 0.01 + 1)


def rule(name: str, when: str, prefer: Preference = "cloud") -> Rule:
    return Rule(name, Condition(when), Choice(prefer, f"because_{name.replace('-', '_')}"))


def test_the_first_rule_that_matches_decides() -> None:
    rules = (rule("no", "false"), rule("yes", "true"), rule("late", "true", "edge"))
    result = plan(outcome(state(E, **FAST), state(C), rules=rules))
    assert (result.rule, result.candidates[0].reasons) == ("yes", ("because_yes",))
    assert [(t.rule, t.matched, t.outcome) for t in result.rules] == [
        ("no", False, "false"),
        ("yes", True, "true"),
        ("late", False, "not reached"),
    ]


@pytest.mark.parametrize(
    "when",
    [
        "edge.available && edge.queue_depth == 3 && edge.model == 'b' && edge.in_time",
        "cloud.available && cloud.model == 'c' && cloud.queue_depth == 0",
        "request.prompt_tokens == 10 && request.max_tokens == 256 && request.num_messages == 1",
        "latency.ttft_ms == 2000 && edge.predicted_ttft_ms == 20",
    ],
)
def test_conditions_see_the_first_available_backend_of_each_lane(when: str) -> None:
    states = (
        state(E, name="a", available=False, model="a"),
        state(C, model="c"),
        state(E, name="b", model="b", queue_depth=3, prompt_bytes_per_token=2.0, **FAST),
    )
    latency = LatencyTolerance(latency_class="interactive")
    assert plan(outcome(*states, rules=(rule("seen", when),), latency=latency)).rule == "seen"


def test_a_rule_cannot_pass_the_floor() -> None:
    result = outcome(state(E, **FAST), state(C), rules=(rule("greedy", "true", "cloud_only"),), **PRIVATE)
    assert brief(result) == ["refused no_backend_within_rule"]


BROKEN = rule("broken", "1 / request.num_messages > 0 && 1 / (request.num_messages - 1) > 0")


def test_a_rule_that_fails_closes_the_cloud() -> None:
    result = plan(outcome(state(E, **FAST), state(C), rules=(BROKEN, rule("yes", "true"))))
    assert brief(result) == ["edge policy_error"]
    assert result.floor.reach is Reach.DEVICE
    assert result.floor.steps[-1] == "rule broken failed: device"
    assert [t.outcome for t in result.rules] == ["error: divide by zero", "not reached"]


def test_a_rule_that_fails_refuses_rather_than_sends_away() -> None:
    assert brief(outcome(state(E, available=False), state(C), rules=(BROKEN,))) == ["refused no_backend_within_floor"]


@pytest.mark.parametrize(
    ("edge", "fields", "can_retry"),
    [({"available": False}, {}, True), (SLOW, STRICT, True), (FAST, FRONTIER, False)],
)
def test_a_refusal_says_whether_time_may_help(edge: dict[str, Any], fields: dict[str, Any], can_retry: bool) -> None:
    result = outcome(state(E, **edge), state(C), **PRIVATE, **fields)
    assert isinstance(result, Refusal)
    assert result.can_retry is can_retry


def test_every_backend_is_traced_with_its_verdict() -> None:
    result = plan(outcome(state(C), state(E, **FAST), **PRIVATE))
    assert [(t.backend, t.allowed, t.reason) for t in result.backends] == [
        ("edge", True, "preferred"),
        ("cloud", False, "floor_forbids_cloud"),
    ]
    assert result.policy_hash == "sha256:000000000000"
