"""What a request gets depends on nobody else: whoever comes, goes or fails beside it, the same logits to the byte."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge import batch
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.config import ModelConfig
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import CancelledError
from edge.events import Event, Failed, Finished, Started, Token
from edge.sampler import SamplingParams
from edge.sequence import Sequence

CONTEXT = 96
LENGTHS = (1, 2, 7, 16, 33, 60, 81)
Drawn = list[bytes]  # a digest of the logits of each token


@dataclass(frozen=True, slots=True)
class Request:
    ids: tuple[int, ...]
    sampling: SamplingParams


def request(number: int) -> Request:
    rng = np.random.default_rng(number)
    ids = rng.integers(0, SMALL.vocab_size, LENGTHS[number % len(LENGTHS)]).tolist()
    sampling = SamplingParams(max_tokens=1 + number * 5 % 14, temperature=number % 3 / 2, top_p=0.9, seed=number)
    return Request(tuple(ids), sampling)


REQUESTS = [request(number) for number in range(9)]


@dataclass
class Outcome:
    tokens: list[int] = field(default_factory=list)
    drawn: Drawn = field(default_factory=list)
    end: str = ""


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture(scope="module")
def drawn() -> Iterator[dict[int, Drawn]]:
    """Filled by every engine: what each job's tokens were drawn from."""
    digests: dict[int, Drawn] = defaultdict(list)
    original = Sequence.draw

    def draw(self: Sequence, logits: NDArray[np.float32], config: ModelConfig) -> int | None:
        digests[self.job].append(hashlib.sha256(logits.tobytes()).digest())
        return original(self, logits, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sequence, "draw", draw)
        yield digests


def load(path: Path, *, slots: int | None = None, chunk: int | None = None, places: int = 1) -> Engine:
    options = EngineOptions(2_000_000_000, CONTEXT, chunk_tokens=chunk, max_sequences=places, expert_slots=slots)
    return Engine.load(path, options)


@pytest.fixture(scope="module")
def alone(pack_path: Path, drawn: dict[int, Drawn]) -> list[Outcome]:
    """Each request on an engine that has nothing else to do."""
    engine = load(pack_path)
    outcomes = []
    for job, asked in enumerate(REQUESTS):
        drawn.clear()
        engine.submit(job, asked.ids, asked.sampling)
        outcomes.append(Outcome())
        while engine.has_work:
            note(engine.step(), {job: outcomes[-1]})
        outcomes[-1].drawn = drawn[job]
    engine.close()
    return outcomes


def note(events: list[Event], outcomes: dict[int, Outcome]) -> None:
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """Who comes and who is cancelled at which layer of all that are computed."""

    arrivals: dict[int, int]
    cancellations: dict[int, int]
    slots: int | None
    chunk: int | None
    places: int
    block_rows: int  # of the token mixers


schedules = st.builds(
    Schedule,
    arrivals=st.dictionaries(st.sampled_from(range(len(REQUESTS))), st.integers(0, 60), min_size=1),
    cancellations=st.dictionaries(st.sampled_from(range(len(REQUESTS))), st.integers(0, 90), max_size=3),
    slots=st.sampled_from([4, 5, 17, 100, None]),
    chunk=st.sampled_from([1, 3, 16, 50, None]),
    places=st.integers(1, 6),
    block_rows=st.sampled_from([1, 7, batch.BLOCK_ROWS]),
)


def play(engine: Engine, schedule: Schedule) -> dict[int, Outcome]:
    outcomes = {job: Outcome() for job in schedule.arrivals}
    missing = dict(schedule.arrivals)
    layer = 0

    def pulse() -> None:
        nonlocal layer
        layer += 1
        for job in [job for job, when in missing.items() if when <= layer]:
            del missing[job]
            engine.submit(job, REQUESTS[job].ids, REQUESTS[job].sampling)
        for job, when in schedule.cancellations.items():
            if when == layer:
                engine.cancel(job)

    while missing or engine.has_work:
        pulse()
        note(engine.step(pulse), outcomes)
    return outcomes


@settings(max_examples=40)
@given(schedule=schedules)
def test_every_request_gets_what_it_gets_alone(
    pack_path: Path, alone: list[Outcome], drawn: dict[int, Drawn], schedule: Schedule
) -> None:
    drawn.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "BLOCK_ROWS", schedule.block_rows)
        engine = load(pack_path, slots=schedule.slots, chunk=schedule.chunk, places=schedule.places)
        outcomes = play(engine, schedule)
        engine.close()
    for job, outcome in outcomes.items():
        if outcome.end == CancelledError.__name__:
            assert job in schedule.cancellations
        else:
            assert (outcome.tokens, outcome.end) == (alone[job].tokens, alone[job].end)
        assert outcome.tokens == alone[job].tokens[: len(outcome.tokens)]
        assert drawn[job] == alone[job].drawn[: len(drawn[job])]
