"""Reads an OpenAI chat-completions request: its JSON body and our headers. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from router.gateway.json_reader import Fields, parse_object, shown
from router.gateway.parameter import ParameterError
from router.privacy.reach import Reach
from router.request import GenerationRequest, LatencyClass, LatencyTolerance, Message, Sampling

# Documented parameters that a plain text answer does not depend on: accepted, without effect.
IGNORED: Final = frozenset(
    ["metadata", "model", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "service_tier", "user"]
)
# Parameters not supported here, with the values that ask for nothing and are therefore accepted.
NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
# The same for a message; an answer of ours, sent back as history, holds most of these as null.
_MESSAGE_NEUTRAL: Final[Mapping[str, tuple[object, ...]]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}
# "developer" is the newer name of "system".
_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_REACHES: Final = {reach.label: reach for reach in Reach}
_CLASSES: Final[Mapping[str, LatencyClass]] = {name: name for name in get_args(LatencyClass)}

TAGS_HEADER: Final = "x-flashgate-tags"
TTFT_HEADER: Final = "x-flashgate-ttft-ms"
TOTAL_HEADER: Final = "x-flashgate-total-ms"
_HEADERS: Final = (TAGS_HEADER, TTFT_HEADER, TOTAL_HEADER)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to generate, and how the answer is to be written."""

    generation: GenerationRequest
    stream: bool
    include_usage: bool


def read(raw: bytes, headers: Sequence[tuple[str, str]], tenant: str) -> ChatRequest:
    """Headers: lower-case names. Tags of header and body add up; of two latency bounds the tighter holds.

    Raises ParameterError. Ranges are checked by `limits`.
    """
    _refuse_unknown(headers)
    body = Fields(parse_object(raw))
    # Any name will do, or none: the route decides, and the answer says which model it was.
    body.text("model")
    stream = body.flag("stream")
    include_usage = _include_usage(body, stream)
    tags, latency, min_capability, max_reach = _flashgate(body.sub("flashgate"))
    generation = GenerationRequest(
        messages=_messages(body.raw("messages")),
        sampling=_sampling(body),
        tags=tuple(dict.fromkeys((*_header_tags(headers), *tags))),
        latency=_tighter(latency, _milliseconds(headers, TTFT_HEADER), _milliseconds(headers, TOTAL_HEADER)),
        min_capability=min_capability,
        tenant=tenant,
        max_reach=max_reach,
    )
    for key in IGNORED:
        body.raw(key)
    _refuse_unsupported(body, NEUTRAL)
    body.done()
    return ChatRequest(generation, stream, include_usage)


def _refuse_unknown(headers: Sequence[tuple[str, str]]) -> None:
    """A header that was meant for us and is misspelt must not be lost: it could have been a tag."""
    for name, _ in headers:
        if name.replace("_", "-").startswith("x-flashgate-") and name not in _HEADERS:
            raise ParameterError(shown(name), f"unknown header; known are {', '.join(_HEADERS)}", "unknown_parameter")


def _refuse_unsupported(fields: Fields, neutral: Mapping[str, tuple[object, ...]]) -> None:
    for key, values in neutral.items():
        value = fields.raw(key)
        # In Python True == 1 and 1.0 == 1; only the first is another value in JSON.
        if value is not None and not any(value == v and isinstance(value, bool) == isinstance(v, bool) for v in values):
            hint = f"; accepted is {' or '.join(json.dumps(v) for v in values)}" if values else ""
            fields.fail(key, f"not supported{hint}", "unsupported_parameter")


def _include_usage(body: Fields, stream: bool) -> bool:
    options = body.sub("stream_options")
    if options is None:
        return False
    if not stream:
        body.fail("stream_options", "is only allowed with stream: true")
    include_usage = options.flag("include_usage")
    # Padding against observers of the line's lengths; over loopback there are none.
    options.flag("include_obfuscation")
    options.done()
    return include_usage


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise ParameterError(
            "messages", "must be a list of objects with role and content", "missing_required_parameter"
        )
    return tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))


def _message(value: Any, param: str) -> Message:
    if not isinstance(value, dict):
        raise ParameterError(param, "must be an object with role and content")
    fields = Fields(value, f"{param}.")
    role = fields.raw("role")
    if not isinstance(role, str) or role not in _ROLES:
        fields.fail("role", f"must be one of {', '.join(_ROLES)} (tools are not supported)")
    content = _content(fields.raw("content"), f"{param}.content", role)
    _refuse_unsupported(fields, _MESSAGE_NEUTRAL)
    fields.done()
    return Message(role=_ROLES[role], content=content)


def _content(value: Any, param: str, role: str) -> str:
    """A text, a list of text parts (joined), or null in an assistant's turn."""
    if isinstance(value, str):
        return value
    if value is None and role == "assistant":
        return ""
    if not isinstance(value, list):
        raise ParameterError(param, "must be a text or a list of text parts")
    return "".join(_part(part, f"{param}[{index}]") for index, part in enumerate(value))


def _part(value: Any, param: str) -> str:
    if not isinstance(value, dict):
        raise ParameterError(param, "must be an object")
    fields = Fields(value, f"{param}.")
    if fields.raw("type") != "text":
        fields.fail("type", "only parts of type text are supported", "unsupported_parameter")
    text = fields.raw("text")
    if not isinstance(text, str):
        fields.fail("text", "must be a text")
    fields.done()
    return text


def _sampling(body: Fields) -> Sampling:
    return Sampling(
        max_tokens=_max_tokens(body),
        temperature=body.number("temperature"),
        top_p=body.number("top_p"),
        top_k=body.integer("top_k"),
        min_p=body.number("min_p"),
        seed=body.integer("seed"),
        stop=body.texts("stop"),
    )


def _max_tokens(body: Fields) -> int | None:
    """The new name or the old one; both only if they agree."""
    old, new = body.integer("max_tokens"), body.integer("max_completion_tokens")
    if old is not None and new is not None and old != new:
        body.fail("max_tokens", "differs from max_completion_tokens: give one")
    return old if new is None else new


def _flashgate(
    fields: Fields | None,
) -> tuple[tuple[str, ...], LatencyTolerance, str, Reach | None]:
    """Our part of the body, which the OpenAI client sends as `extra_body={"flashgate": {…}}`."""
    if fields is None:
        return (), LatencyTolerance(), "", None
    tags = fields.texts("privacy_tags")
    latency = fields.sub("latency")
    min_capability = fields.text("min_capability") or ""
    reach = fields.choice("max_reach", _REACHES)
    fields.done()
    return tags, _latency(latency), min_capability, None if reach is None else _REACHES[reach]


def _latency(fields: Fields | None) -> LatencyTolerance:
    if fields is None:
        return LatencyTolerance()
    ttft_ms, total_ms = fields.number("ttft_ms"), fields.number("total_ms")
    latency_class, strict = fields.choice("class", _CLASSES), fields.flag("strict")
    fields.done()
    return LatencyTolerance(
        ttft_s=None if ttft_ms is None else ttft_ms / 1000,
        total_s=None if total_ms is None else total_ms / 1000,
        latency_class=None if latency_class is None else _CLASSES[latency_class],
        strict=strict,
    )


def _tighter(latency: LatencyTolerance, ttft_s: float | None, total_s: float | None) -> LatencyTolerance:
    return LatencyTolerance(
        ttft_s=_least(latency.ttft_s, ttft_s),
        total_s=_least(latency.total_s, total_s),
        latency_class=latency.latency_class,
        strict=latency.strict,
    )


def _least(first: float | None, second: float | None) -> float | None:
    values = [value for value in (first, second) if value is not None]
    return min(values, default=None)


def _header_tags(headers: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Comma-separated; a repeated header adds its tags. An empty name between commas means nothing, but a header
    without any name is an error: a caller whose variable was not set must not become one without tags."""
    values = [value for key, value in headers if key == TAGS_HEADER]
    names = [[name.strip() for name in value.split(",") if name.strip()] for value in values]
    if not all(names):
        raise ParameterError(TAGS_HEADER, "names no tag; leave it out if the request has none")
    return tuple(name for some in names for name in some)


def _milliseconds(headers: Sequence[tuple[str, str]], header: str) -> float | None:
    values = [value.strip() for key, value in headers if key == header]
    if not values:
        return None
    if len(values) > 1:
        raise ParameterError(header, "is given twice")
    # Digits only: float() would read "1_000", "nan" and "١".
    if not (values[0].isascii() and values[0].isdigit() and len(values[0]) <= 12):
        raise ParameterError(header, "must be a whole number of milliseconds")
    return int(values[0]) / 1000
