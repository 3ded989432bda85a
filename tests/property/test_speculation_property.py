"""Guessing changes no answer: whoever guesses, and however well, each request gets what it gets without, to the bit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.engine_parts
from edge import batch
from edge.batch import Batch
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import CancelledError
from edge.prefix.snapshot import snapshot_bytes
from edge.sampler import SamplingParams
from edge.speculation.drafter import Drafter, DraftRequest, MtpDrafter
from edge.speculation.speculation import AlwaysOpen, Speculation
from edge.state import SequenceState
from tests.property.crowd import CONTEXT, Alone, Drawn, Visitor, assert_idle, play, play_alone, visitor
from tests.property.failing import Faults, assert_reads_excuse, failing_reads, faults, streaming

CONFIG = replace(SMALL, num_mtp_layers=1)
WITHOUT = EngineOptions(2_000_000_000, CONTEXT, max_sequences=1, speculate="off")
# The last two meet the end of the context, one of them with its prompt.
VISITORS = [
    *(visitor(number) for number in range(7)),
    Visitor(tuple(range(40, 120)), SamplingParams(max_tokens=1000, temperature=0.7, seed=3)),
    Visitor(tuple(range(3, 99)), SamplingParams(max_tokens=1000)),
]


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", CONFIG, tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture(scope="module")
def alone(pack_path: Path, drawn: dict[int, Drawn]) -> list[Alone]:
    """Each request on an engine that guesses nothing and has nothing else to do."""
    return play_alone(Engine.load(pack_path, WITHOUT), VISITORS, drawn)


class Clairvoyant:
    """Knows every answer, and tells each token of it rightly with some probability."""

    def __init__(self, engine: Engine, inner: Drafter, alone: list[Alone], rightness: float) -> None:
        self._engine, self._inner = engine, inner
        self._alone, self._rightness = alone, rightness

    def follow(self, batch: Batch) -> None:
        self._inner.follow(batch)

    def catch_up(self, states: Sequence[SequenceState]) -> None:
        self._inner.catch_up(states)

    def draft(self, requests: Sequence[DraftRequest]) -> list[list[int]]:
        return [self._guesses(request) for request in requests]

    def _guesses(self, request: DraftRequest) -> list[int]:
        sequences = self._engine._requests._sequences.values()
        sequence = next(sequence for sequence in sequences if sequence._state is request.state)
        known = sequence.stats.completion_tokens
        rng = np.random.default_rng((sequence.job, known))
        tokens = [*self._alone[sequence.job].outcome.tokens[known:], 1, 2, 3, 4][: request.most]
        return [token if rng.random() < self._rightness else int(rng.integers(CONFIG.vocab_size)) for token in tokens]


@dataclass(frozen=True, slots=True)
class Setting:
    """Who comes and leaves when, and how the engine computes and guesses."""

    arrivals: dict[int, int]
    cancellations: dict[int, int]
    slots: int | None
    chunk: int | None
    places: int
    block_rows: int  # of the token mixers
    depth: int
    rightness: float | None  # None: the MTP layer itself guesses

    @property
    def visitors(self) -> dict[int, Visitor]:
        return {
            job: replace(VISITORS[job], comes=comes, leaves=self.cancellations.get(job, 10**6))
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
            prefix_memory_bytes=3 * snapshot_bytes(CONFIG, CONTEXT),
            speculate="always",
            draft_tokens=self.depth,
        )

    @contextmanager
    def engine(self, pack_path: Path, alone: list[Alone], *, streams: bool = False) -> Iterator[Engine]:
        planned = edge.engine_parts.planned
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "BLOCK_ROWS", self.block_rows)
            if streams:
                patch.setattr(edge.engine_parts, "planned", lambda *given: streaming(planned(*given)))
            engine = Engine.load(pack_path, self.options)
            speculation = engine._requests._speculation
            assert speculation is not None
            if self.rightness is not None:
                drafter = Clairvoyant(engine, speculation._drafter, alone, self.rightness)
                engine._speculation = engine._requests._speculation = Speculation(drafter, AlwaysOpen(), self.depth)
            yield engine
            engine.close()


settings_of = st.builds(
    Setting,
    arrivals=st.dictionaries(st.sampled_from(range(len(VISITORS))), st.integers(0, 40), min_size=1),
    cancellations=st.dictionaries(st.sampled_from(range(len(VISITORS))), st.integers(0, 60), max_size=2),
    slots=st.sampled_from([4, 17, None]),
    chunk=st.sampled_from([3, 16, None]),
    places=st.integers(1, 5),
    block_rows=st.sampled_from([1, 3, batch.BLOCK_ROWS]),
    depth=st.integers(1, 4),
    rightness=st.sampled_from([None, 0.0, 0.6, 0.9, 1.0]),
)


@settings(max_examples=25)
@given(setting=settings_of)
def test_every_request_gets_what_it_gets_without_guesses(
    pack_path: Path, alone: list[Alone], drawn: dict[int, Drawn], setting: Setting
) -> None:
    drawn.clear()
    with setting.engine(pack_path, alone) as engine:
        outcomes = play(engine, setting.visitors)
        assert_idle(engine)
        stats = engine.stats().speculation
    for job, outcome in outcomes.items():
        if outcome.end == CancelledError.__name__:
            assert job in setting.cancellations
        else:
            assert outcome == alone[job].outcome
        assert drawn[job] == alone[job].drawn[: len(drawn[job])]
        assert 0 <= outcome.stats.accepted_tokens <= min(outcome.stats.drafted_tokens, len(outcome.tokens))
    if not setting.cancellations:
        assert stats.drafted_tokens == sum(outcome.stats.drafted_tokens for outcome in outcomes.values())
        assert stats.accepted_tokens == sum(outcome.stats.accepted_tokens for outcome in outcomes.values())
        if setting.rightness == 1.0:  # all but those of an end
            assert stats.accepted_tokens >= stats.drafted_tokens - setting.depth * len(outcomes)


@settings(max_examples=10)
@given(setting=settings_of, failing=faults, streams=st.booleans())
def test_reads_that_fail_cost_at_most_the_requests_that_needed_them(
    pack_path: Path, alone: list[Alone], setting: Setting, failing: Faults, streams: bool
) -> None:
    with setting.engine(pack_path, alone, streams=streams) as engine:
        with failing_reads(failing.hit) as failed:
            outcomes = play(engine, setting.visitors)
        assert_idle(engine)
        assert_reads_excuse(outcomes, alone, cancelled=setting.cancellations, failed=failed)
        assert play(engine, {5: VISITORS[5]})[5].tokens == alone[5].outcome.tokens
        assert_idle(engine)


@settings(max_examples=10)
@given(setting=settings_of.filter(lambda setting: not setting.cancellations), depth=st.integers(1, 3))
def test_what_the_layer_guesses_depends_on_nothing_but_the_text(
    pack_path: Path, alone: list[Alone], setting: Setting, depth: int
) -> None:
    """Chunks, company, cache size and prompts that are known from before: the same guesses, so the same counts."""
    own = replace(setting, rightness=None, depth=depth)
    guessed = {}
    with replace(own, arrivals={}, slots=None, chunk=None, places=1).engine(pack_path, alone) as engine:
        for job, guest in own.visitors.items():
            guessed[job] = drafts_of(engine, {job: replace(guest, comes=0, tenant=f"tenant {job}")})[job]
    with own.engine(pack_path, alone) as engine:
        assert drafts_of(engine, own.visitors) == guessed
        assert drafts_of(engine, own.visitors) == guessed  # now with snapshots of their beginnings


def drafts_of(engine: Engine, visitors: dict[int, Visitor]) -> dict[int, list[list[int]]]:
    """By job all that was guessed on the way."""
    found: dict[int, list[list[int]]] = {job: [] for job in visitors}
    original = MtpDrafter.draft

    def draft(self: MtpDrafter, requests: Sequence[DraftRequest]) -> list[list[int]]:
        drafts = original(self, requests)
        jobs = {id(sequence._state): sequence.job for sequence in engine._requests._sequences.values()}
        for request, tokens in zip(requests, drafts, strict=True):
            found[jobs[id(request.state)]].append(tokens)
        return drafts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MtpDrafter, "draft", draft)
        play(engine, visitors)
    return found
