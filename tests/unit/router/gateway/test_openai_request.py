"""Chat-completions requests: what is understood, what is refused and by which name."""

import json
from collections.abc import Mapping, Sequence

import pytest

from router.gateway import limits, openai_request
from router.gateway.parameter import ParameterError
from router.privacy.reach import Reach
from router.request import GenerationRequest, LatencyTolerance, Message, Sampling

HELLO = {"role": "user", "content": "hello"}


def read_with(headers: Sequence[tuple[str, str]], body: Mapping[str, object]) -> openai_request.ChatRequest:
    whole = {"model": "any", "messages": [HELLO], **body}
    return openai_request.read(json.dumps(whole).encode(), headers, "default")


def read(**body: object) -> openai_request.ChatRequest:
    return read_with((), body)


def refused(**body: object) -> ParameterError:
    with pytest.raises(ParameterError) as caught:
        limits.check(read(**body).generation)
    return caught.value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("functions", [{}]),
        ("n", 2),
        ("n", True),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("store", True),
        ("logit_bias", {"50256": -100}),
        ("frequency_penalty", 0.5),
        ("presence_penalty", 0.5),
        ("prediction", {}),
        ("reasoning_effort", "high"),
        ("web_search_options", {}),
    ],
)
def test_unsupported_parameters_are_refused_by_name(key: str, value: object) -> None:
    error = refused(**{key: value})
    assert error.param == key
    assert error.code == "unsupported_parameter"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", None),
        ("user", "u-1"),
        ("metadata", {"a": "b"}),
        ("n", 1),
        ("store", False),
        ("logprobs", False),
        ("tools", []),
        ("tool_choice", "none"),
        ("response_format", {"type": "text"}),
        ("frequency_penalty", 0),
        ("frequency_penalty", 0.0),
        ("parallel_tool_calls", True),
        ("service_tier", "auto"),
        ("logit_bias", None),
    ],
)
def test_parameters_that_ask_for_nothing_are_accepted(key: str, value: object) -> None:
    assert read(**{key: value}) == read()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": 7}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [HELLO, {"role": "user", "content": 7}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{**HELLO, "name": "Ann"}]}, "messages[0].name"),
        ({"messages": [{**HELLO, "tool_calls": [{}]}]}, "messages[0].tool_calls"),
        ({"messages": [{**HELLO, "extra": 1}]}, "messages[0].extra"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages"),
        ({"messages": [HELLO] * (limits.MAX_MESSAGES + 1)}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * (limits.MAX_CONTENT_BYTES + 1)}]}, "messages"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 1}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [7]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"other": 1}}, "stream_options.other"),
        ({"no_such": 1}, "no_such"),
        ({"flashgate": []}, "flashgate"),
        ({"flashgate": {"tags": ["phi"]}}, "flashgate.tags"),
        ({"flashgate": {"privacy_tags": 7}}, "flashgate.privacy_tags"),
        ({"flashgate": {"privacy_tags": ["x" * 65]}}, "privacy_tags"),
        ({"flashgate": {"privacy_tags": ["a\nb"]}}, "privacy_tags"),
        ({"flashgate": {"privacy_tags": ["t"] * 1 + [f"t{i}" for i in range(32)]}}, "privacy_tags"),
        ({"flashgate": {"max_reach": "moon"}}, "flashgate.max_reach"),
        ({"flashgate": {"min_capability": "A b"}}, "min_capability"),
        ({"flashgate": {"latency": {"class": "now"}}}, "flashgate.latency.class"),
        ({"flashgate": {"latency": {"ttft": 1}}}, "flashgate.latency.ttft"),
        ({"flashgate": {"latency": {"ttft_ms": 0}}}, "latency.ttft"),
        ({"flashgate": {"latency": {"ttft_ms": 5, "total_ms": 4}}}, "latency"),
    ],
)
def test_bad_values_are_refused_by_name(body: dict[str, object], param: str) -> None:
    assert refused(**body).param == param


def test_whole_request_is_read() -> None:
    chat = read(
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": None, "annotations": []},
        ],
        max_completion_tokens=5,
        temperature=1,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        seed=2**64 - 1,
        stop="end",
        stream=True,
        stream_options={"include_usage": True},
        flashgate={
            "privacy_tags": ["phi"],
            "latency": {"ttft_ms": 500, "total_ms": 2500, "class": "batch", "strict": True},
            "min_capability": "large",
            "max_reach": "fleet",
        },
    )
    assert chat.stream
    assert chat.include_usage
    assert chat.generation == GenerationRequest(
        messages=(Message("system", "be brief"), Message("user", "ab"), Message("assistant", "")),
        sampling=Sampling(5, 1.0, 0.5, 40, 0.1, 2**64 - 1, ("end",)),
        tags=("phi",),
        latency=LatencyTolerance(0.5, 2.5, "batch", True),
        min_capability="large",
        tenant="default",
        max_reach=Reach.FLEET,
    )
    limits.check(chat.generation)


def test_tags_of_headers_and_body_add_up() -> None:
    headers = [("x-flashgate-tags", "phi, internal,"), ("x-flashgate-tags", "pci")]
    assert read_with(headers, {"flashgate": {"privacy_tags": ["internal", "hr"]}}).generation.tags == (
        "phi",
        "internal",
        "pci",
        "hr",
    )


@pytest.mark.parametrize("value", ["", " ", ",", " , ,"])
def test_tags_header_without_a_tag_is_refused(value: str) -> None:
    with pytest.raises(ParameterError, match="x-flashgate-tags: names no tag"):
        read_with([("x-flashgate-tags", "phi"), ("x-flashgate-tags", value)], {})


@pytest.mark.parametrize(("header_ms", "body_ms", "seconds"), [(200, 500, 0.2), (500, 200, 0.2), (200, None, 0.2)])
def test_tighter_latency_bound_holds(header_ms: int, body_ms: int | None, seconds: float) -> None:
    headers = [("x-flashgate-ttft-ms", str(header_ms))]
    latency = read_with(headers, {"flashgate": {"latency": {"ttft_ms": body_ms}}}).generation.latency
    assert latency.ttft_s == seconds


@pytest.mark.parametrize("value", ["", "-1", "1.5", "1e3", "nan", "soon", "1_000", "9" * 13, "²"])
def test_latency_header_that_is_no_whole_number_is_refused(value: str) -> None:
    with pytest.raises(ParameterError, match="x-flashgate-ttft-ms: must be a whole number"):
        read_with([("x-flashgate-ttft-ms", value)], {})


def test_latency_header_given_twice_is_refused() -> None:
    with pytest.raises(ParameterError, match="x-flashgate-total-ms: is given twice"):
        read_with([("x-flashgate-total-ms", "5"), ("x-flashgate-total-ms", "6")], {})


@pytest.mark.parametrize(
    "name", ["x-flashgate-tag", "x-flashgate-privacy-tags", "x_flashgate_tags", "x-flashgate-max-reach"]
)
def test_misspelt_header_of_ours_is_refused_rather_than_lost(name: str) -> None:
    with pytest.raises(ParameterError, match="unknown header; known are x-flashgate-tags") as caught:
        read_with([(name, "phi")], {})
    assert (caught.value.param, caught.value.code) == (name, "unknown_parameter")


@pytest.mark.parametrize("key", ["max_tokens", "top_k", "seed"])
@pytest.mark.parametrize("value", [10**400, -(10**400)])
def test_integer_beyond_any_float_is_out_of_range(key: str, value: int) -> None:
    assert refused(**{key: value}).param == key
