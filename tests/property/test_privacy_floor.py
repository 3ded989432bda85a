"""Whatever a request, a detector or a policy is like: a floor is only ever tightened, and no decision passes it."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from router.decide import Plan, decide
from router.policy.condition import Condition
from router.policy.policy import Choice, Policy, Rule
from router.privacy.floor import PrivacyRules, floor_of
from router.privacy.reach import Reach
from router.privacy.tags import BUILT_IN, TagRegistry
from router.request import BackendState, GenerationRequest, LatencyTolerance, Message, Sampling
from router.signals.features import features_of
from router.signals.predict import Bounds

ANY_TEXT = st.text(st.characters(), max_size=60)
TAG = st.sampled_from([*BUILT_IN, "project-x", "nobody-knows", "", "PHI "]) | ANY_TEXT
REACH = st.sampled_from(Reach)
EXTENSION = st.dictionaries(
    st.sampled_from([*BUILT_IN, "project-x"]), REACH
).map(lambda tags: {tag: min(reach, BUILT_IN.get(tag, Reach.CLOUD)) for tag, reach in tags.items()})  # fmt: skip
RULES = st.builds(PrivacyRules, EXTENSION.map(TagRegistry), REACH)
DETECTION = st.dictionaries(st.sampled_from(["email", "iban"]), st.integers(0, 3), max_size=2)


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    return GenerationRequest(
        messages=tuple(draw(st.lists(st.builds(Message, st.just("user"), ANY_TEXT), min_size=1, max_size=3))),
        sampling=Sampling(max_tokens=draw(st.none() | st.integers(1, 10_000))),
        tags=tuple(draw(st.lists(TAG, max_size=4))),
        latency=LatencyTolerance(
            ttft_s=draw(st.none() | st.floats(0.001, 100)),
            total_s=draw(st.none() | st.floats(0.001, 100)),
            latency_class=draw(st.sampled_from([None, "interactive", "batch", "background"])),
            strict=draw(st.booleans()),
        ),
        min_capability=draw(st.sampled_from(["", "basic", "frontier", "divine"])),
        tenant=draw(st.sampled_from(["default", ""])),
        max_reach=draw(st.none() | REACH),
    )


@given(requests(), RULES, DETECTION, TAG)
def test_adding_a_tag_never_raises_the_floor_of_a_tagged_request(
    request: GenerationRequest, rules: PrivacyRules, found: Mapping[str, int], tag: str
) -> None:
    tagged = GenerationRequest(request.messages, tags=(*request.tags, "public"), max_reach=request.max_reach)
    more = GenerationRequest(request.messages, tags=(*tagged.tags, tag), max_reach=request.max_reach)
    assert floor_of(more, rules, lambda _: found).reach <= floor_of(tagged, rules, lambda _: found).reach


@given(requests(), RULES, DETECTION)
def test_a_floor_is_the_lowest_of_all_that_speaks(
    request: GenerationRequest, rules: PrivacyRules, found: Mapping[str, int]
) -> None:
    floor = floor_of(request, rules, lambda _: found)
    voices = [rules.tags.reach_of(tag) or Reach.DEVICE for tag in request.tags] or [rules.untagged]
    voices += [Reach.DEVICE for count in found.values() if count]
    voices += [] if request.max_reach is None else [request.max_reach]
    assert floor.reach == min(voices)


@given(requests(), RULES, st.sampled_from([ValueError, RecursionError, MemoryError, UnicodeEncodeError, KeyError]))
def test_any_exception_means_device(request: GenerationRequest, rules: PrivacyRules, error: type[Exception]) -> None:
    def fail(_request: GenerationRequest) -> Mapping[str, int]:
        raise error.__new__(error)

    assert floor_of(request, rules, fail).reach is Reach.DEVICE


@given(requests(), RULES)
def test_a_floor_holds_nothing_of_the_content(request: GenerationRequest, rules: PrivacyRules) -> None:
    canary = "canary4711"
    with_canary = GenerationRequest((*request.messages, Message("user", canary)), tags=(*request.tags, canary))
    assert canary not in repr(floor_of(with_canary, rules))


CONDITIONS = (
    "true",
    "false",
    "floor == 'cloud'",
    "'public' in request.tags",
    "edge.available && edge.in_time",
    "cloud.available",
    "size(detections) > 0",
    "1 / size(request.tenant) > 0 || false",
    "request.min_capability == 'basic'",
)


@cache
def condition(source: str) -> Condition:
    return Condition(source)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    choices = st.builds(Choice, st.sampled_from(["edge", "cloud", "edge_only", "cloud_only"]), st.just("because"))
    rules = draw(st.lists(st.tuples(st.sampled_from(CONDITIONS), choices), max_size=4))
    return Policy(
        source="test",
        digest="0" * 64,
        privacy=draw(RULES),
        capabilities=("basic", "frontier"),
        latency_classes={"interactive": Bounds(ttft_s=draw(st.floats(0.01, 10)))},
        rules=tuple(Rule(f"r{i}", condition(source), choice) for i, (source, choice) in enumerate(rules)),
        default=draw(choices),
    )


@st.composite
def states(draw: st.DrawFn) -> list[BackendState]:
    rate = st.sampled_from([0.0, 0.1, 10.0, 1000.0])
    backends: list[BackendState] = []
    for index in range(draw(st.integers(0, 4))):
        fields: dict[str, Any] = {
            "lane": draw(st.sampled_from(["edge", "cloud"])),
            "reach": draw(REACH),
            "available": draw(st.booleans()),
            "capability": draw(st.sampled_from(["", "basic", "frontier"])),
            "queue_depth": draw(st.integers(0, 2)),
            "queue_limit": draw(st.integers(0, 2)),
            "context_tokens": draw(st.sampled_from([0, 4, 4096])),
            "pending_prompt_tokens": draw(st.integers(0, 1000)),
            "steps_until_place": draw(st.integers(0, 1000)),
            "prefill_tokens_per_second": draw(rate),
            "decode_tokens_per_second": draw(rate),
        }
        backends.append(BackendState(name=f"b{index}", **fields))
    return backends


@given(requests(), policies(), states(), DETECTION)
def test_no_decision_passes_the_floor(
    request: GenerationRequest, policy: Policy, backends: list[BackendState], found: Mapping[str, int]
) -> None:
    floor = floor_of(request, policy.privacy, lambda _: found)
    result = decide(request, features_of(request), policy, floor, backends)
    assert result.floor.reach <= floor.reach
    assert sorted(trace.backend for trace in result.backends) == sorted(state.name for state in backends)
    if any(trace.outcome.startswith("error") for trace in result.rules):
        assert result.floor.reach is Reach.DEVICE
    by_name = {state.name: state for state in backends}
    for trace in result.backends:
        if by_name[trace.backend].reach > result.floor.reach:
            assert not trace.allowed
            assert trace.reason.startswith("floor_forbids_")
    if isinstance(result, Plan):
        assert result.candidates
        for candidate in result.candidates:
            state = by_name[candidate.backend]
            assert candidate.reach == state.reach <= result.floor.reach
            assert state.available
            assert policy.is_capable(state.capability, request.min_capability)
            assert candidate.reasons
    else:
        assert not any(trace.allowed for trace in result.backends)


@given(requests(), policies(), states())
def test_a_decision_repeats(request: GenerationRequest, policy: Policy, backends: list[BackendState]) -> None:
    def once() -> object:
        floor = floor_of(request, policy.privacy, lambda _: {})
        return decide(request, features_of(request), policy, floor, backends)

    assert once() == once()
