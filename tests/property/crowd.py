"""Requests that come and go at given layers of all that an engine computes, and what becomes of each."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.checkpoint.random_model import SMALL
from edge.config import ModelConfig
from edge.engine import Engine
from edge.events import Event, Failed, Finished, GenerationStats, Started, Token
from edge.experts.store import ExpertStore
from edge.sampler import SamplingParams
from edge.sequence import Sequence

NEVER = 10**6
CONTEXT = 96
LENGTHS = (1, 2, 7, 16, 33, 60, 81)
Drawn = list[bytes]  # a digest of the logits of each token


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request; it comes, and is cancelled, when so many layers have been computed."""

    ids: tuple[int, ...]
    sampling: SamplingParams
    tenant: str = ""
    comes: int = 0
    leaves: int = NEVER


@dataclass
class Outcome:
    """`end` is the finish reason or the name of an error."""

    tokens: list[int] = field(default_factory=list)
    end: str = ""
    stats: GenerationStats = field(default_factory=lambda: GenerationStats(0), compare=False)


@dataclass(frozen=True, slots=True)
class Alone:
    """What a request gets of an engine that has nothing else to do."""

    outcome: Outcome
    drawn: Drawn


def visitor(number: int) -> Visitor:
    """One of many unlike each other, the same for the same number."""
    rng = np.random.default_rng(number)
    ids = rng.integers(0, SMALL.vocab_size, LENGTHS[number % len(LENGTHS)]).tolist()
    sampling = SamplingParams(max_tokens=1 + number * 5 % 14, temperature=number % 3 / 2, top_p=0.9, seed=number)
    return Visitor(tuple(ids), sampling)


@contextmanager
def noting_what_is_drawn() -> Iterator[dict[int, Drawn]]:
    """By job, what the tokens of every engine are drawn from within the block."""
    digests: dict[int, Drawn] = defaultdict(list)
    original = Sequence.draw

    def draw(self: Sequence, logits: NDArray[np.float32], config: ModelConfig) -> int | None:
        digests[self.job].append(hashlib.sha256(logits.tobytes()).digest())
        return original(self, logits, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sequence, "draw", draw)
        yield digests


def play(engine: Engine, visitors: Mapping[int, Visitor]) -> dict[int, Outcome]:
    """Let the visitors, named by job, come and go until the last has ended, each once and well-behaved."""
    outcomes = {job: Outcome() for job in visitors}
    missing = set(visitors)
    layer = 0

    def pulse() -> None:
        nonlocal layer
        layer += 1
        for job in sorted(missing):
            if visitors[job].comes <= layer:
                missing.remove(job)
                visitor = visitors[job]
                outcomes[job].stats = engine.submit(job, visitor.ids, visitor.sampling, visitor.tenant)
        for job, visitor in visitors.items():
            if visitor.leaves == layer:
                engine.cancel(job)

    while missing or engine.has_work:
        pulse()
        _note(engine.step(pulse), outcomes)
        assert engine._prefixes.stats().held_bytes <= engine.plan.prefix_bytes
    assert all(outcome.end for outcome in outcomes.values())
    return outcomes


def play_alone(engine: Engine, visitors: Iterable[Visitor], drawn: dict[int, Drawn]) -> list[Alone]:
    """What each gets of `engine`, which is then closed. `drawn` is what `noting_what_is_drawn` fills."""
    found = []
    for job, guest in enumerate(visitors):
        drawn.clear()
        found.append(Alone(play(engine, {job: guest})[job], drawn[job]))
    engine.close()
    return found


def assert_idle(engine: Engine) -> None:
    """Every place, all KV memory, and all room for snapshots and experts is free or says what it holds."""
    requests, scheduler = engine._requests, engine._requests._scheduler
    assert (len(requests), requests._cancelled) == (0, set())
    assert (scheduler.num_running, scheduler.num_waiting, scheduler._free_kv_tokens) == (0, 0, engine.plan.kv_tokens)
    assert len(engine._states._free) == engine.plan.num_sequences
    assert not any(state.length for state in engine._states._free)
    assert engine._prefixes._cache._reserved_bytes == 0
    store = engine.experts
    assert isinstance(store, ExpertStore)
    if store._lookahead:
        store._lookahead.reclaim()  # what is read on a guess is held until somebody asks
    assert store._slots.cache.num_held == 0


def _note(events: list[Event], outcomes: dict[int, Outcome]) -> None:
    for event in events:
        outcome = outcomes[event.job]
        assert not outcome.end
        match event:
            case Token(token=token):
                outcome.tokens.append(token)
            case Finished(reason=reason):
                outcome.end = reason
            case Failed(error=error):
                outcome.end = type(error).__name__
            case Started():
                assert not outcome.tokens
