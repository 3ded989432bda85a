"""A chat request as both protocols mean it, checked against the contract's ranges."""

import math
from dataclasses import dataclass

from cloud_stub.answer import tokenize
from cloud_stub.errors import RequestError

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_STOPS = 16


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation."""

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            # The role is the caller's text: say what is allowed, not what was sent.
            raise RequestError(f"messages.role must be one of {', '.join(ROLES)}")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Checked although a stated text is never sampled: a cloud would refuse what is out of range."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("max_tokens", self.max_tokens, 1, math.inf)
        _check("temperature", self.temperature, 0, 2)
        _check("top_p", self.top_p, 0, 1)
        _check("top_k", self.top_k, 0, math.inf)
        _check("min_p", self.min_p, 0, 1)
        if self.top_p == 0:
            raise RequestError("top_p is 0: it must be above 0 and at most 1")
        if self.min_p == 1:
            raise RequestError("min_p is 1: it must be at least 0 and below 1")
        if len(self.stop) > MAX_STOPS:
            raise RequestError(f"stop holds {len(self.stop)} texts: at most {MAX_STOPS} are allowed")
        if "" in self.stop:
            raise RequestError("stop holds an empty text, which would end every answer at once")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What the stub answers. `request_id` is already safe to log."""

    request_id: str
    messages: tuple[Message, ...]
    sampling: Sampling

    def __post_init__(self) -> None:
        if not self.messages:
            raise RequestError("messages is empty: send at least one")

    @property
    def prompt_tokens(self) -> int:
        """Words in all messages; the stub counts as it answers."""
        return sum(len(tokenize(message.content)) for message in self.messages)


def _check(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        bounds = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise RequestError(f"{name} is {value!r:.40}: it must be {bounds}")
