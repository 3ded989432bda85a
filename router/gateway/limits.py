"""What a request may hold, whatever protocol brought it. Ranges of sampling are those of the wire contract."""

import re
from typing import Final

from router.gateway.parameter import ParameterError
from router.request import GenerationRequest, LatencyTolerance, Message, Sampling

MAX_CONTENT_BYTES: Final = 4 << 20
MAX_MESSAGES: Final = 1024
MAX_TAGS: Final = 32
MAX_TAG_CHARS: Final = 64
MAX_STOPS: Final = 16
MAX_STOP_BYTES: Final = 1024
MAX_TOKENS: Final = 1 << 20
MAX_LATENCY_S: Final = 7 * 24 * 3600.0
ROLES: Final = ("system", "user", "assistant", "tool")
_CAPABILITY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}|")


def check(request: GenerationRequest) -> None:
    """Raises ParameterError for the first thing beyond a limit."""
    _check_messages(request.messages)
    _check_sampling(request.sampling)
    _check_tags(request.tags)
    _check_latency(request.latency)
    if not _CAPABILITY.fullmatch(request.min_capability or ""):
        raise ParameterError("min_capability", "must be a name of at most 64 lower-case letters, digits, _ . -")


def _check_messages(messages: tuple[Message, ...]) -> None:
    if not messages:
        raise ParameterError("messages", "at least one message is needed", "missing_required_parameter")
    if len(messages) > MAX_MESSAGES:
        raise ParameterError("messages", f"has {len(messages)} messages; at most {MAX_MESSAGES}")
    num_bytes = 0
    for index, message in enumerate(messages):
        if message.role not in ROLES:
            raise ParameterError(f"messages[{index}].role", f"must be one of {', '.join(ROLES)}")
        num_bytes += _utf8_bytes(f"messages[{index}].content", message.content)
    if num_bytes > MAX_CONTENT_BYTES:
        raise ParameterError("messages", f"hold {num_bytes} bytes; at most {MAX_CONTENT_BYTES}", "content_too_long")
    if not any(message.content.strip() for message in messages):
        raise ParameterError("messages", "all are empty")


def _check_sampling(sampling: Sampling) -> None:
    _check_range("max_tokens", sampling.max_tokens, 1, MAX_TOKENS)
    _check_range("temperature", sampling.temperature, 0, 2)
    _check_range("top_p", sampling.top_p, 0, 1)
    _check_range("top_k", sampling.top_k, 0, (1 << 31) - 1)
    _check_range("min_p", sampling.min_p, 0, 1)
    _check_range("seed", sampling.seed, 0, (1 << 64) - 1)
    if sampling.top_p == 0:
        raise ParameterError("top_p", "must be above 0, at most 1")
    if sampling.min_p == 1:
        raise ParameterError("min_p", "must be from 0, below 1")
    if len(sampling.stop) > MAX_STOPS:
        raise ParameterError("stop", f"has {len(sampling.stop)} texts; at most {MAX_STOPS}")
    for text in sampling.stop:
        if not 0 < _utf8_bytes("stop", text) <= MAX_STOP_BYTES:
            raise ParameterError("stop", f"each text must have 1 to {MAX_STOP_BYTES} bytes")


def _check_tags(tags: tuple[str, ...]) -> None:
    if len(tags) > MAX_TAGS:
        raise ParameterError("privacy_tags", f"has {len(tags)} tags; at most {MAX_TAGS}")
    for tag in tags:
        if not 0 < len(tag.strip()) <= MAX_TAG_CHARS or not tag.isprintable():
            raise ParameterError("privacy_tags", f"each tag must have 1 to {MAX_TAG_CHARS} printable characters")
        _utf8_bytes("privacy_tags", tag)


def _check_latency(latency: LatencyTolerance) -> None:
    for name, value in (("latency.ttft", latency.ttft_s), ("latency.total", latency.total_s)):
        if value is not None and not 0 < value <= MAX_LATENCY_S:
            raise ParameterError(name, f"must be above 0, at most {MAX_LATENCY_S:.0f} seconds")
    if latency.ttft_s is not None and latency.total_s is not None and latency.ttft_s > latency.total_s:
        raise ParameterError("latency", "the bound of the first token is above the bound of the whole answer")


def _check_range(name: str, value: float | None, low: int, high: int) -> None:
    # False for NaN too. Not math.isfinite(), which fails on integers beyond any float.
    if value is not None and not low <= value <= high:
        raise ParameterError(name, f"must be from {low} to {high}")


def _utf8_bytes(param: str, text: str) -> int:
    """Length in UTF-8. JSON can carry half of a surrogate pair, which no model and no wire format can."""
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise ParameterError(param, "holds half of a surrogate pair, which is not text") from None
