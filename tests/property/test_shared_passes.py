"""What a request gets depends on nobody else: whoever comes, goes or fails beside it, the same logits to the byte."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.engine_parts
from edge import batch
from edge.checkpoint.random_model import SMALL
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import CancelledError
from edge.prefix.snapshot import snapshot_bytes
from tests.property.crowd import CONTEXT, NEVER, Alone, Drawn, Visitor, assert_idle, play, play_alone, visitor
from tests.property.failing import Faults, assert_reads_excuse, failing_reads, faults, streaming

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


@pytest.fixture(scope="module")
def alone(pack_path: Path, drawn: dict[int, Drawn]) -> list[Alone]:
    """Each request on an engine that has nothing else to do."""
    engine = Engine.load(pack_path, EngineOptions(2_000_000_000, CONTEXT, max_sequences=1))
    return play_alone(engine, VISITORS, drawn)


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
    assert_reads_excuse(outcomes, alone, cancelled=schedule.cancellations, failed=failed)
    assert play(engine, {5: VISITORS[5]})[5].tokens == alone[5].outcome.tokens
    assert_idle(engine)
    engine.close()
