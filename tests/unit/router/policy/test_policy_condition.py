"""Conditions on a request's facts."""

from typing import Any

import pytest

from router.policy.condition import Condition, Scene
from router.policy.facts import UNBOUNDED_MS, VARIABLES, Facts, LaneFacts, absent_lane
from router.privacy.floor import PrivacyRules, floor_of
from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, LatencyTolerance, Message
from router.signals.predict import Bounds, Prediction


def scene(text: str = "write to jane@example.com", **fields: Any) -> Scene:
    request = GenerationRequest(messages=(Message("user", text),), **fields)
    edge = BackendState(
        "edge", "edge", Reach.DEVICE, available=True, model="qwen", capability="basic", queue_depth=2, queue_limit=8,
        running=1, prefill_tokens_per_second=100.0, decode_tokens_per_second=9.5,
    )  # fmt: skip
    return Scene(
        Facts(
            request=request,
            num_messages=1,
            prompt_tokens=7,
            max_tokens=256,
            bounds=Bounds(ttft_s=1.5),
            floor=floor_of(request, PrivacyRules()),
            edge=LaneFacts(edge, Prediction(0.25, 26.2), is_in_time=True),
            cloud=absent_lane("cloud"),
        )
    )


VALUES = {
    "request.tags": "['phi', 'x']",
    "request.tenant": "'acme'",
    "request.prompt_tokens": "7",
    "request.max_tokens": "256",
    "request.num_messages": "1",
    "request.min_capability": "'frontier'",
    "latency.ttft_ms": "1500",
    "latency.total_ms": str(UNBOUNDED_MS),
    "latency.class": "'batch'",
    "latency.strict": "true",
    "detections": "['email']",
    "floor": "'device'",
    "edge.available": "true",
    "edge.capability": "'basic'",
    "edge.in_time": "true",
    "edge.model": "'qwen'",
    "edge.predicted_ttft_ms": "250",
    "edge.predicted_total_ms": "26200",
    "edge.prefill_tokens_per_second": "100.0",
    "edge.decode_tokens_per_second": "9.5",
    "edge.queue_depth": "2",
    "edge.queue_limit": "8",
    "edge.running": "1",
    "cloud.available": "false",
    "cloud.capability": "''",
    "cloud.in_time": "false",
    "cloud.model": "''",
    "cloud.predicted_ttft_ms": str(UNBOUNDED_MS),
    "cloud.predicted_total_ms": str(UNBOUNDED_MS),
    "cloud.prefill_tokens_per_second": "0.0",
    "cloud.decode_tokens_per_second": "0.0",
    "cloud.queue_depth": "0",
    "cloud.queue_limit": "0",
    "cloud.running": "0",
}


@pytest.mark.parametrize("name", [variable.name for variable in VARIABLES])
def test_each_variable_has_its_value(name: str) -> None:
    facts = scene(
        tags=("PHI", " x"),
        tenant="acme",
        min_capability="frontier",
        latency=LatencyTolerance(latency_class="batch", strict=True),
    )
    assert Condition(f"{name} == {VALUES[name]}").evaluate(facts) is True


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("true", True),
        ("false", False),
        ("'pii' in request.tags || request.prompt_tokens > 5", True),
        ("request.tags.exists(t, t.startsWith('p'))", False),
        ("1 / (request.num_messages - 1) > 0", "divide by zero"),
        ("1 % (request.num_messages - 1) > 0", "modulus by zero"),
        ("9223372036854775807 + request.num_messages > 0", "integer overflow"),
        ("[1][request.num_messages] == 1", "Index error"),
        ("{'a': 1}[request.tenant] == 1", "Key not found in map"),
        ("int(request.tenant) == 1", "evaluation failed"),
        ("dyn(request.tenant) > 3", "No matching overloads found"),
        ("request.tenant.matches(request.tenant + '(')", "invalid regular expression"),
    ],
)
def test_an_outcome_is_a_truth_or_the_kind_of_an_error(source: str, outcome: bool | str) -> None:
    assert Condition(source).evaluate(scene(tenant="canary")) == outcome


def test_a_loop_without_end_is_an_error() -> None:
    loops = "request.tags.all(t, request.tags.all(u, request.tags.all(v, t + u + v != 'x')))"
    assert Condition(loops).evaluate(scene(tags=tuple(map(str, range(500))))) == "Iteration budget exceeded"


def test_an_error_beside_a_truth_is_the_truth() -> None:
    # CEL's own rule; it is safe because the truth stands whatever the error would have been.
    assert Condition("1 / (request.num_messages - 1) > 0 || true").evaluate(scene()) is True


def test_facts_that_cannot_be_passed_on_are_an_error() -> None:
    class Broken:
        activation = None

    assert Condition("request.num_messages > 0").evaluate(Broken()) == "evaluation failed"  # type: ignore[arg-type]  # broken
