"""Whatever prompts come, in whatever order, from whomever: reuse changes no byte and stays within its memory."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
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
from edge.events import Failed, Finished, GenerationStats
from edge.prefix.snapshot import snapshot_bytes
from edge.sampler import SamplingParams
from edge.sequence import Sequence

CONTEXT = 128
SAMPLING = SamplingParams(max_tokens=18, temperature=0.9, seed=1)
Drawn = list[bytes]  # a digest of the logits of each token


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture(scope="module")
def drawn() -> Iterator[dict[int, Drawn]]:
    """By job, what its tokens were drawn from."""
    digests: dict[int, Drawn] = defaultdict(list)
    original = Sequence.draw

    def draw(self: Sequence, logits: NDArray[np.float32], config: ModelConfig) -> int | None:
        digests[self.job].append(hashlib.sha256(logits.tobytes()).digest())
        return original(self, logits, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sequence, "draw", draw)
        yield digests


class Expected:
    """What prompts get without reuse, each computed once."""

    def __init__(self, path: Path, drawn: dict[int, Drawn]) -> None:
        self._engine = Engine.load(path, EngineOptions(2_000_000_000, CONTEXT, max_sequences=1))
        self._drawn = drawn
        self._known: dict[tuple[int, ...], Drawn] = {}

    def __call__(self, ids: tuple[int, ...]) -> Drawn:
        if ids not in self._known:
            self._drawn.pop(0, None)
            self._engine.submit(0, ids, SAMPLING)
            while self._engine.has_work:
                self._engine.step()
            self._known[ids] = self._drawn.pop(0)
        return self._known[ids]


@pytest.fixture(scope="module")
def expected(pack_path: Path, drawn: dict[int, Drawn]) -> Expected:
    return Expected(pack_path, drawn)


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt made of few parts, so that prompts share beginnings; it comes at a layer of all that are computed."""

    parts: tuple[tuple[int, int], ...]  # a seed, and how many tokens
    tenant: str
    at_layer: int
    cancelled_after: int  # layers; beyond all for most

    @property
    def ids(self) -> tuple[int, ...]:
        ids = [token for seed, size in self.parts for token in stream(seed)[:size]]
        return tuple(ids[: CONTEXT - 20]) or (1,)


def stream(seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, SMALL.vocab_size - 4, 60)]


requests = st.builds(
    Request,
    parts=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 15, 16, 24, 40, 47, 60])), min_size=1, max_size=3
    ).map(tuple),
    tenant=st.sampled_from(["", "a"]),
    at_layer=st.integers(0, 120),
    cancelled_after=st.sampled_from([3, 17, *[10**6] * 6]),
)


@settings(max_examples=25)
@given(
    asked=st.lists(requests, min_size=2, max_size=9),
    chunk=st.sampled_from([1, 7, 16, 40, None]),
    places=st.integers(1, 4),
    block_rows=st.sampled_from([5, batch.BLOCK_ROWS]),
    num_snapshots=st.sampled_from([1, 2, 100]),
    on_disk=st.booleans(),
)
def test_reuse_changes_no_byte(
    pack_path: Path,
    expected: Expected,
    drawn: dict[int, Drawn],
    tmp_path_factory: pytest.TempPathFactory,
    asked: list[Request],
    chunk: int | None,
    places: int,
    block_rows: int,
    num_snapshots: int,
    on_disk: bool,
) -> None:
    wanted = [expected(request.ids) for request in asked]
    options = EngineOptions(
        2_000_000_000,
        CONTEXT,
        chunk_tokens=chunk,
        max_sequences=places,
        prefix_memory_bytes=num_snapshots * snapshot_bytes(SMALL, CONTEXT),
        prefix_dir=tmp_path_factory.mktemp("store", numbered=True) / "d" if on_disk else None,
        prefix_disk_bytes=20 * snapshot_bytes(SMALL, CONTEXT) if on_disk else 0,
    )
    drawn.clear()
    stats: dict[int, GenerationStats] = {}
    cancelled: set[int] = set()
    engine = Engine.load(pack_path, options)
    layer = 0

    def pulse() -> None:
        nonlocal layer
        layer += 1
        for job, request in enumerate(asked):
            if job not in stats and request.at_layer <= layer:
                stats[job] = engine.submit(job, request.ids, SAMPLING, request.tenant)
            if request.at_layer + request.cancelled_after <= layer:
                engine.cancel(job)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "BLOCK_ROWS", block_rows)
        while engine.has_work or len(stats) < len(asked):
            pulse()
            for event in engine.step(pulse):
                if isinstance(event, Failed):
                    cancelled.add(event.job)
                if isinstance(event, Finished):
                    assert event.stats.reused_tokens < len(asked[event.job].ids)
            assert engine.stats().prefixes.held_bytes <= engine.plan.prefix_bytes
    prefixes = engine.stats().prefixes
    engine.close()
    for job, want in enumerate(wanted):
        assert drawn[job] == (want[: len(drawn[job])] if job in cancelled else want)
    assert all(asked[job].cancelled_after < 10**6 for job in cancelled)
    assert prefixes.reused_tokens == sum(one.reused_tokens for one in stats.values())
