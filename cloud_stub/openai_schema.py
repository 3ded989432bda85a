"""The OpenAI chat-completions JSON, read strictly and written as the API documents it. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cloud_stub.cloud import Delta, Finished
from cloud_stub.errors import RequestError
from cloud_stub.request import ChatRequest, Message, Sampling

# Documented parameters that change nothing in a stated text: accepted.
_WITHOUT_EFFECT = {
    "frequency_penalty", "logit_bias", "metadata", "presence_penalty", "prompt_cache_key", "prompt_cache_retention",
    "reasoning_effort", "safety_identifier", "service_tier", "store", "user", "verbosity",
}  # fmt: skip
# Documented parameters whose answer would have another shape, with the value that keeps the plain one.
_PLAIN_ONLY: Mapping[str, object] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": None,
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "tools": [],
    "tool_choice": "none",
    "parallel_tool_calls": True,
}
_READ = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed",
    "stop", "stream", "stream_options",
}  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A parsed body: the request and how its answer is to be sent."""

    request: ChatRequest
    stream: bool
    include_usage: bool


def parse_body(raw: bytes, request_id: str) -> ChatBody:
    """Read a chat-completions body. Raises RequestError naming the key; never repeats the caller's text."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise RequestError("the body is not JSON") from exc
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    _check_keys(body)
    if not isinstance(body.get("model", ""), str | None):
        raise RequestError("model must be a text")
    stream = _flag(body, "stream")
    request = ChatRequest(request_id, _messages(body.get("messages")), _sampling(body))
    return ChatBody(request, stream, _flag(_stream_options(body, stream), "include_usage"))


def completion(request_id: str, model: str, created: int, text: str, end: Finished) -> dict[str, object]:
    """The answer in one piece."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": end.finish_reason,
    }
    return {**_head("chat.completion", request_id, model, created), "choices": [choice], "usage": _usage(end)}


class ChunkWriter:
    """Writes one streamed answer's chunks."""

    def __init__(self, request_id: str, model: str, created: int, include_usage: bool) -> None:
        self._head = _head("chat.completion.chunk", request_id, model, created)
        self._include_usage = include_usage
        self._role = {"role": "assistant"}

    def write(self, event: Delta | Finished) -> list[dict[str, object]]:
        """The chunks for one event: several at the end if usage was asked for."""
        if isinstance(event, Delta):
            # Only the first chunk names the role.
            delta, self._role = {**self._role, "content": event.text}, {}
            return [self._chunk([_choice(delta, None)])]
        chunks = [self._chunk([_choice(dict(self._role), event.finish_reason)])]
        if self._include_usage:
            chunks.append({**self._head, "choices": [], "usage": _usage(event)})
        return chunks

    def _chunk(self, choices: list[dict[str, object]]) -> dict[str, object]:
        # With include_usage every chunk has the key, null until the last.
        return {**self._head, "choices": choices, **({"usage": None} if self._include_usage else {})}


def error_body(message: str, error_type: str, code: str) -> dict[str, object]:
    return {"error": {"message": message, "type": error_type, "param": None, "code": code}}


def model_list(model: str, created: int) -> dict[str, object]:
    entry = {"id": model, "object": "model", "created": created, "owned_by": "flashgate-cloud-stub"}
    return {"object": "list", "data": [entry]}


def _head(kind: str, request_id: str, model: str, created: int) -> dict[str, object]:
    return {"id": f"chatcmpl-{request_id}", "object": kind, "created": created, "model": model}


def _choice(delta: dict[str, str], finish_reason: str | None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _usage(end: Finished) -> dict[str, int]:
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }


def _check_keys(body: Mapping[str, object]) -> None:
    for key, plain in _PLAIN_ONLY.items():
        if body.get(key) not in (None, plain):
            raise RequestError(f"{key}: this stub supports only {json.dumps(plain)}")
    for key in body.keys() - _READ - _WITHOUT_EFFECT - _PLAIN_ONLY.keys():
        # A key that is no name could be content, which an error must not repeat.
        name = key if _NAME.fullmatch(key) else "(not a name)"
        raise RequestError(f"unknown parameter {name}; read here are {', '.join(sorted(_READ))}")


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise RequestError("messages must be a list of objects with role and content")
    return tuple(_message(turn) for turn in value)


def _message(turn: object) -> Message:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        raise RequestError("messages: each must be an object with a role")
    return Message(turn["role"], _content(turn.get("content")))


def _content(value: object) -> str:
    """A text, null (as an assistant's turn may have), or a list of text parts."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RequestError("messages.content must be a text, null or a list of parts")
    return "".join(_part(part) for part in value)


def _part(part: object) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RequestError("messages.content: this stub reads only parts of type text")
    text: str = part["text"]
    return text


def _sampling(body: Mapping[str, object]) -> Sampling:
    return Sampling(
        max_tokens=_max_tokens(body),
        temperature=_number(body, "temperature"),
        top_p=_number(body, "top_p"),
        top_k=_integer(body, "top_k"),
        min_p=_number(body, "min_p"),
        seed=_integer(body, "seed"),
        stop=_stop(body.get("stop")),
    )


def _max_tokens(body: Mapping[str, object]) -> int | None:
    """The new name or the old one; both only if they agree."""
    old, new = _integer(body, "max_tokens"), _integer(body, "max_completion_tokens")
    if old is not None and new is not None and old != new:
        raise RequestError(f"max_tokens is {old} and max_completion_tokens {new}: give one")
    return old if new is None else new


def _stop(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RequestError("stop must be a text or a list of texts")
    return tuple(texts)


def _integer(body: Mapping[str, object], key: str) -> int | None:
    value = body.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise RequestError(f"{key} must be an integer")
    return value


def _number(body: Mapping[str, object], key: str) -> float | None:
    value = body.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise RequestError(f"{key} must be a number")
    return value


def _flag(body: Mapping[str, object], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{key} must be true or false")
    return bool(value)


def _stream_options(body: Mapping[str, object], stream: bool) -> Mapping[str, object]:
    options = body.get("stream_options")
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise RequestError("stream_options must be an object")
    if not stream:
        raise RequestError("stream_options is only allowed with stream: true")
    return options
