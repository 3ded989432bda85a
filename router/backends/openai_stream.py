"""Reads a streamed chat completion of the OpenAI API. Pure."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

from router.backends.backend import Finished, TextDelta
from router.backends.sse import SseError, SseReader

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_FINISH_REASONS: Final[dict[str, Literal["stop", "length"]]] = {"stop": "stop", "length": "length"}


class StreamError(Exception):
    """The stream is not an answer: broken, or an error in its middle. The text holds no content."""


class CompletionStream:
    """Feed it pieces; it gives text as it comes, and the end once the stream is over."""

    def __init__(self) -> None:
        self._events = SseReader()
        self._finish_reason: Literal["stop", "length"] | None = None
        self._prompt_tokens: int | None = None
        self._completion_tokens: int | None = None
        self.model = ""
        self.is_done = False

    def feed(self, piece: bytes) -> Iterator[TextDelta]:
        """Raises StreamError."""
        try:
            for data in self._events.feed(piece):
                if data == "[DONE]":
                    self.is_done = True
                    return
                text = self._chunk(_object(data))
                if text:
                    yield TextDelta(text)
        except SseError as exc:
            raise StreamError(str(exc)) from None

    def end(self) -> Finished:
        """Raises StreamError if the stream stopped before the answer did. A missing [DONE] alone is forgiven."""
        if self._finish_reason is None:
            raise StreamError("the stream ended before the answer did")
        return Finished(self._finish_reason, self._prompt_tokens, self._completion_tokens)

    def _chunk(self, chunk: dict[str, Any]) -> str:
        if chunk.get("error") is not None:
            raise StreamError(f"an error in the stream{error_name(chunk)}")
        if isinstance(chunk.get("model"), str):
            self.model = chunk["model"]
        self._usage(chunk.get("usage"))
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices:
            return ""
        choice = choices[0] if isinstance(choices[0], dict) else {}
        self._finish(choice.get("finish_reason"))
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else None
        return _text(text) if isinstance(text, str) else ""

    def _finish(self, reason: object) -> None:
        if reason is None:
            return
        if not isinstance(reason, str) or reason not in _FINISH_REASONS:
            named = isinstance(reason, str) and _NAME.fullmatch(reason)
            raise StreamError(f"the answer ended with finish_reason {reason if named else '(not a name)'}")
        self._finish_reason = _FINISH_REASONS[reason]

    def _usage(self, usage: object) -> None:
        if isinstance(usage, dict):
            self._prompt_tokens = _count(usage.get("prompt_tokens"))
            self._completion_tokens = _count(usage.get("completion_tokens"))


def error_name(body: object) -> str:
    """` (code)` of an error body, if it has one that is a name. Its message may quote the request."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        for key in ("code", "type"):
            value = error.get(key)
            if isinstance(value, str) and _NAME.fullmatch(value):
                return f" ({value})"
    return ""


def _object(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise StreamError("an event is not JSON") from None
    if not isinstance(value, dict):
        raise StreamError("an event is not a JSON object")
    return value


def _text(text: str) -> str:
    """JSON can carry half of a surrogate pair, which none of our own answers can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise StreamError("an event holds half of a surrogate pair") from None
    return text


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else None
