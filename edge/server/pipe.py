"""What the server and its engine process tell each other: a JSON object per line, over the child's stdin and stdout."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edge.deviation import RoutingCounts
from edge.sampler import SamplingParams


@dataclass(frozen=True, slots=True)
class Counters:
    """The engine's totals since it was loaded.

    prefix_hits: prompts that went on where an earlier one had been; prefix_tokens: what they did not compute again.
    routings, substituted, weight_kept: edge.deviation.RoutingCounts. The last two: edge.events.GenerationStats.
    """

    expert_hits: int = 0
    expert_lookups: int = 0
    expert_read_bytes: int = 0
    disk_seconds: float = 0.0
    prefix_hits: int = 0
    prefix_misses: int = 0
    prefix_tokens: int = 0
    routings: int = 0
    substituted: int = 0
    weight_kept: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def routing(self) -> RoutingCounts:
        """How far its experts were others than the model's own."""
        return RoutingCounts(self.routings, self.substituted, self.weight_kept)

    def since(self, before: "Counters") -> "Counters":
        """What was added after `before`."""
        return Counters(*(getattr(self, name) - getattr(before, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Load:
    """First command: load the packed model at `path`. Its other fields are explained in edge.engine_options."""

    path: str
    memory_bytes: int
    context_tokens: int
    threads: int
    num_sequences: int | None = None
    verify: Literal["first", "always", "off"] = "always"
    prefix_memory_bytes: int | None = None
    prefix_disk_bytes: int = 0
    prefix_dir: str | None = None
    speculate: Literal["auto", "always", "off"] = "auto"
    draft_tokens: int = 1
    experts_per_token: int | None = None
    substitute: float | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    """Run one request; the engine answers with Steps that name it, the last of which says how it ended.

    tenant: the scope within which its prompt may be recognised again.
    """

    job: int
    ids: Sequence[int]
    sampling: SamplingParams
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up a request; it still ends in a Step. Nothing happens if it is over."""

    job: int


@dataclass(frozen=True, slots=True)
class Loading:
    """`done` of `total` bytes of the dense weights are loaded."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine can take requests, `num_sequences` of them at once."""

    model: str
    context_tokens: int
    vocab_size: int
    num_sequences: int
    counters: Counters


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The engine cannot be loaded; `error` is the name of a class of edge.errors or a foreign one."""

    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Alive:
    """A sign of life during a long step."""

    counters: Counters


@dataclass(frozen=True, slots=True)
class Crashed:
    """Last words after an error nobody foresaw: the class's name only, since its text may quote what it failed on."""

    error: str


@dataclass(frozen=True, slots=True)
class Worked:
    """What one request has cost so far; `reused_tokens` of its prompt were known from an earlier one.

    routings, substituted, weight_kept: edge.deviation.RoutingCounts. The last two: edge.events.GenerationStats.
    """

    expert_hits: int = 0
    expert_lookups: int = 0
    expert_read_bytes: int = 0
    reused_tokens: int = 0
    routings: int = 0
    substituted: int = 0
    weight_kept: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def routing(self) -> RoutingCounts:
        """How far its experts were others than the model's own."""
        return RoutingCounts(self.routings, self.substituted, self.weight_kept)


@dataclass(frozen=True, slots=True)
class Started:
    """The engine began a request's prompt of so many tokens."""

    job: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Token:
    """The next token of a request."""

    job: int
    token: int
    worked: Worked = Worked()


@dataclass(frozen=True, slots=True)
class Finished:
    """A request came to its end; `reason` is "stop" or "length"."""

    job: int
    reason: str
    worked: Worked = Worked()


@dataclass(frozen=True, slots=True)
class Failed:
    """A request ended with an error; `error` as in LoadFailed. The message holds nothing of the prompt."""

    job: int
    error: str
    message: str


Event = Started | Token | Finished | Failed


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the engine brought, for all the requests in it.

    began_s, ended_s: on the machine's monotonic clock, which both processes read alike. counters: now and then.
    """

    began_s: float
    ended_s: float
    events: list[Event]
    counters: Counters | None = None


Message = Load | Generate | Cancel | Loading | Ready | LoadFailed | Alive | Step | Crashed

_MESSAGES: Mapping[str, type[Message]] = {
    kind.__name__: kind for kind in (Load, Generate, Cancel, Loading, Ready, LoadFailed, Alive, Step, Crashed)
}


class PipeError(ValueError):
    """A line that is no message: the two sides are of different versions, or something else wrote to the pipe."""


def to_line(message: Message) -> bytes:
    return json.dumps({"is": type(message).__name__, **_plain(message)}, separators=(",", ":")).encode() + b"\n"


def from_line(line: bytes) -> Message:
    """Raises: PipeError, without quoting the line, which may hold a prompt."""
    try:
        values: dict[str, Any] = json.loads(line)
        kind = _MESSAGES[values.pop("is")]
        for name in _READ.keys() & values.keys():
            values[name] = _READ[name](values[name])
        return kind(**values)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError):
        raise PipeError(f"a line of {len(line)} bytes between server and engine is no message") from None


def _plain(message: Message) -> dict[str, Any]:
    match message:
        case Step():
            # By hand: `asdict` takes five times as long, and a step may last only milliseconds.
            return {
                "began_s": message.began_s,
                "ended_s": message.ended_s,
                "events": [_event_to_list(event) for event in message.events],
                "counters": message.counters and asdict(message.counters),
            }
        case Generate():
            # By hand, too: `asdict` copies each of a long prompt's ids by itself, while all other callers wait.
            return {
                "job": message.job,
                "ids": list(message.ids),
                "sampling": asdict(message.sampling),
                "tenant": message.tenant,
            }
        case _:
            return asdict(message)


def _event_to_list(event: Event) -> list[Any]:
    """The kind first: a step of eight sequences is a third as long as with the names of fields."""
    match event:
        case Started():
            return ["Started", event.job, event.prompt_tokens]
        case Token():
            return ["Token", event.job, event.token, *_worked_to_list(event.worked)]
        case Finished():
            return ["Finished", event.job, event.reason, *_worked_to_list(event.worked)]
        case Failed():
            return ["Failed", event.job, event.error, event.message]


def _worked_to_list(worked: Worked) -> list[int | float]:
    return [getattr(worked, name) for name in Worked.__slots__]


def _event_from_list(values: list[Any]) -> Event:
    match values:
        case ["Started", job, prompt_tokens]:
            return Started(job, prompt_tokens)
        case ["Token", job, token, *worked]:
            return Token(job, token, Worked(*worked))
        case ["Finished", job, reason, *worked]:
            return Finished(job, reason, Worked(*worked))
        case ["Failed", job, error, message]:
            return Failed(job, error, message)
    raise ValueError(len(values))


_READ: Mapping[str, Callable[[Any], Any]] = {
    "counters": lambda values: values and Counters(**values),
    "sampling": lambda values: SamplingParams(**values),
    "events": lambda values: [_event_from_list(event) for event in values],
}
