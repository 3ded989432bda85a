"""What the server and its engine process tell each other: a JSON object per line, over the child's stdin and stdout."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edge.sampler import SamplingParams


@dataclass(frozen=True, slots=True)
class Counters:
    """The engine's totals since it was loaded, and its memory now."""

    expert_hits: int = 0
    expert_lookups: int = 0
    expert_read_bytes: int = 0
    disk_seconds: float = 0.0
    memory_bytes: int = 0

    def since(self, before: "Counters") -> "Counters":
        """What was added after `before`; the memory is that of now."""
        return Counters(
            self.expert_hits - before.expert_hits,
            self.expert_lookups - before.expert_lookups,
            self.expert_read_bytes - before.expert_read_bytes,
            self.disk_seconds - before.disk_seconds,
            self.memory_bytes,
        )


@dataclass(frozen=True, slots=True)
class Load:
    """First command: load the packed model at `path`."""

    path: str
    memory_bytes: int
    context_tokens: int
    threads: int


@dataclass(frozen=True, slots=True)
class Generate:
    """Run one request; the engine answers with Tokens and one Finished or Failed."""

    job: int
    ids: list[int]
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up a request; it still ends with Finished or Failed. Nothing happens if it is over."""

    job: int


@dataclass(frozen=True, slots=True)
class Loading:
    """`done` of `total` bytes of the dense weights are loaded."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine can take requests."""

    model: str
    context_tokens: int
    vocab_size: int
    counters: Counters


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine cannot be loaded; `error` is the name of a class of edge.errors or a foreign one."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Alive:
    """A sign of life during a long prompt."""

    counters: Counters


@dataclass(frozen=True, slots=True)
class Token:
    """The next token of a request."""

    job: int
    token: int
    counters: Counters


@dataclass(frozen=True, slots=True)
class Finished:
    """A request came to its end; `reason` is "stop" or "length"."""

    job: int
    reason: str
    counters: Counters


@dataclass(frozen=True, slots=True)
class Failed:
    """A request ended with an error; `error` as in LoadFailed. The message holds nothing of the prompt."""

    job: int
    error: str
    message: str
    counters: Counters


Message = Load | Generate | Cancel | Loading | Ready | LoadFailed | Alive | Token | Finished | Failed

_TYPES: Mapping[str, type[Message]] = {
    kind.__name__: kind for kind in (Load, Generate, Cancel, Loading, Ready, LoadFailed, Alive, Token, Finished, Failed)
}
_NESTED = {"counters": Counters, "sampling": SamplingParams}


class PipeError(ValueError):
    """A line that is no message: the two sides are of different versions, or something else wrote to the pipe."""


def to_line(message: Message) -> bytes:
    return json.dumps({"is": type(message).__name__, **asdict(message)}, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Raises: PipeError, without quoting the line, which may hold a prompt."""
    try:
        fields: dict[str, Any] = json.loads(line)
        kind = _TYPES[fields.pop("is")]
        nested = {name: _NESTED[name](**fields[name]) for name in _NESTED.keys() & fields.keys()}
        return kind(**(fields | nested))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise PipeError(f"a line of {len(line)} bytes between server and engine is no message") from None
