"""What a request gets depends on nobody else: whoever comes, goes or fails beside it, the same logits to the byte."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.engine_parts
from edge import batch
from edge.budget import MemoryPlan
from edge.checkpoint.random_model import SMALL
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import CancelledError, StorageError
from edge.experts.store import ExpertStore
from edge.kernels import ExpertReader
from edge.prefix.snapshot import snapshot_bytes
from edge.sampler import SamplingParams
from tests.property.crowd import NEVER, Drawn, Outcome, Visitor, play

CONTEXT = 96
LENGTHS = (1, 2, 7, 16, 33, 60, 81)


def visitor(number: int) -> Visitor:
    rng = np.random.default_rng(number)
    ids = rng.integers(0, SMALL.vocab_size, LENGTHS[number % len(LENGTHS)]).tolist()
    sampling = SamplingParams(max_tokens=1 + number * 5 % 14, temperature=number % 3 / 2, top_p=0.9, seed=number)
    return Visitor(tuple(ids), sampling)


VISITORS = [visitor(number) for number in range(9)]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Who comes and who is cancelled at which layer of all that are computed."""

    arrivals: dict[int, int]
    cancellations: dict[int, int]
    slots: int | None
    chunk: int | None
    places: int
    block_rows: int  # of the token mixers

    @property
    def visitors(self) -> dict[int, Visitor]:
        return {
            job: replace(VISITORS[job], comes=comes, leaves=self.cancellations.get(job, NEVER))
            for job, comes in self.arrivals.items()
        }

    @property
    def options(self) -> EngineOptions:
        return EngineOptions(
            2_000_000_000,
            CONTEXT,
            chunk_tokens=self.chunk,
            max_sequences=self.places,
            expert_slots=self.slots,
            prefix_memory_bytes=3 * snapshot_bytes(SMALL, CONTEXT),
        )


schedules = st.builds(
    Schedule,
    arrivals=st.dictionaries(st.sampled_from(range(len(VISITORS))), st.integers(0, 60), min_size=1),
    cancellations=st.dictionaries(st.sampled_from(range(len(VISITORS))), st.integers(0, 90), max_size=3),
    slots=st.sampled_from([4, 5, 17, 100, None]),
    chunk=st.sampled_from([1, 3, 16, 50, None]),
    places=st.integers(1, 6),
    block_rows=st.sampled_from([1, 7, batch.BLOCK_ROWS]),
)


@dataclass(frozen=True, slots=True)
class Alone:
    outcome: Outcome
    drawn: Drawn


@pytest.fixture(scope="module")
def alone(pack_path: Path, drawn: dict[int, Drawn]) -> list[Alone]:
    """Each request on an engine that has nothing else to do."""
    engine = Engine.load(pack_path, EngineOptions(2_000_000_000, CONTEXT, max_sequences=1))
    found = []
    for job, visitor in enumerate(VISITORS):
        drawn.clear()
        outcome = play(engine, {job: visitor})[job]
        found.append(Alone(outcome, drawn[job]))
    engine.close()
    return found


@settings(max_examples=40)
@given(schedule=schedules)
def test_every_request_gets_what_it_gets_alone(
    pack_path: Path, alone: list[Alone], drawn: dict[int, Drawn], schedule: Schedule
) -> None:
    drawn.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "BLOCK_ROWS", schedule.block_rows)
        engine = Engine.load(pack_path, schedule.options)
        outcomes = play(engine, schedule.visitors)
        engine.close()
    for job, outcome in outcomes.items():
        if outcome.end == CancelledError.__name__:
            assert job in schedule.cancellations
        else:
            assert (outcome.tokens, outcome.end) == (alone[job].outcome.tokens, alone[job].outcome.end)
        assert outcome.tokens == alone[job].outcome.tokens[: len(outcome.tokens)]
        assert drawn[job] == alone[job].drawn[: len(drawn[job])]


@dataclass(frozen=True, slots=True)
class Faults:
    """Which reads fail, by their number among all: bursts, for what failed alone is read again with success."""

    first: int
    every: int
    burst: int

    def hit(self, number: int) -> bool:
        return number >= self.first and (number - self.first) % self.every < self.burst


faults = st.builds(
    Faults,
    first=st.integers(0, 200),
    every=st.sampled_from([30, 80, 200, 500]),
    burst=st.sampled_from([1, 3, 20]),
)


@contextmanager
def failing_reads(is_faulty: Callable[[int], bool]) -> Iterator[list[int]]:
    """Reads of experts and of dense weights that end badly, by their number among all; the numbers of those so far."""
    original, failed, count = ExpertReader.wait, list[int](), iter(range(10**9))

    def wait(self: ExpertReader, ticket: int) -> None:
        original(self, ticket)
        number = next(count)
        if is_faulty(number):
            failed.append(number)
            raise StorageError("injected")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExpertReader, "wait", wait)
        yield failed


def streaming(plan: MemoryPlan) -> MemoryPlan:
    """The same plan with most layers, the head and the embedding on disk."""
    return replace(plan, streamed_layers=(0, 1, 3), ring_slots=2, head_streams=True, embedding_on_disk=True)


@settings(max_examples=15)
@given(schedule=schedules, faults=faults, streams=st.booleans())
def test_reads_that_fail_end_requests_and_leave_nothing_behind(
    pack_path: Path, alone: list[Alone], schedule: Schedule, faults: Faults, streams: bool
) -> None:
    planned = edge.engine_parts.planned
    with pytest.MonkeyPatch.context() as patch:
        if streams:
            patch.setattr(edge.engine_parts, "planned", lambda *given: streaming(planned(*given)))
        engine = Engine.load(pack_path, schedule.options)
    with failing_reads(faults.hit) as failed:
        outcomes = play(engine, schedule.visitors)
    assert_idle(engine)
    for job, outcome in outcomes.items():
        assert outcome.tokens == alone[job].outcome.tokens[: len(outcome.tokens)]
        match outcome.end:
            case "CancelledError":
                assert job in schedule.cancellations
            case "StorageError":
                assert failed
            case _:
                assert outcome == alone[job].outcome
    assert play(engine, {5: VISITORS[5]})[5].tokens == alone[5].outcome.tokens
    assert_idle(engine)
    engine.close()


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
