"""Where the time goes: exclusive seconds per kind of work. Serving uses `UNTIMED`, which measures nothing."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

DISK_WAIT = "disk_wait"  # nothing to compute until a read ends
EXPERTS = "experts"
SHARED_EXPERT = "shared_expert"
MLP = "mlp"  # of a model without experts
ATTENTION = "attention"
DELTANET = "deltanet"
HEAD = "head"
ROUTER = "router"
OTHER = "other"  # whatever no span covers: Python, norms, sampling, the embedding
KINDS = (DISK_WAIT, EXPERTS, SHARED_EXPERT, MLP, ATTENTION, DELTANET, HEAD, ROUTER, OTHER)

Span = AbstractContextManager[None]
_T = TypeVar("_T")


class Watch(Protocol):
    """What the layers ask: a span for each kind of work, made once and entered again and again."""

    def span(self, kind: str) -> Span:
        """A context whose duration counts as `kind`, one of KINDS. Raises ValueError for another."""


class Untimed:
    """Measures nothing, so that serving pays next to nothing."""

    def span(self, kind: str) -> Span:
        """A context that does nothing."""
        _check_kind(kind)
        return nullcontext()


UNTIMED = Untimed()


class Stopwatch:
    """Seconds per kind, each moment counted once: a span inside another stops the outer one's clock. One thread."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds = dict.fromkeys(KINDS, 0.0)
        self._outer: list[str] = []
        self._kind = OTHER
        self._since = clock()

    def span(self, kind: str) -> Span:
        """A context whose duration, without that of the spans inside it, counts as `kind`."""
        _check_kind(kind)
        return _Timed(self, kind)

    def take(self) -> dict[str, float]:
        """Seconds of every kind since the last `take`, or since the watch was made; their sum is the time passed."""
        self._turn_to(self._kind)
        taken = self._seconds
        self._seconds = dict.fromkeys(KINDS, 0.0)
        return taken

    def begin(self, kind: str) -> None:
        """What follows is `kind`, until `end`."""
        self._outer.append(self._kind)
        self._turn_to(kind)

    def end(self) -> None:
        """What follows is again what it was before the last `begin`."""
        self._turn_to(self._outer.pop())

    def _turn_to(self, kind: str) -> None:
        now = self._clock()
        self._seconds[self._kind] += now - self._since
        self._kind, self._since = kind, now


class _Timed(AbstractContextManager[None]):
    def __init__(self, watch: Stopwatch, kind: str) -> None:
        self._watch = watch
        self._kind = kind

    def __enter__(self) -> None:
        self._watch.begin(self._kind)

    def __exit__(self, *error: object) -> None:
        self._watch.end()


def each(items: Iterator[_T], span: Span) -> Iterator[_T]:
    """The items; the time that it takes to get each of them is the span's."""
    while True:
        with span:
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of work; known: {', '.join(KINDS)}")
