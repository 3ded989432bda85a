"""Whatever prompts come, in whatever order, from whomever: reuse changes no byte and stays within its memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import batch
from edge.checkpoint.random_model import SMALL
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import CancelledError
from edge.prefix.snapshot import snapshot_bytes
from edge.sampler import SamplingParams
from tests.property.crowd import NEVER, Drawn, Visitor, play

CONTEXT = 128
SAMPLING = SamplingParams(max_tokens=18, temperature=0.9, seed=1)


class Expected:
    """What prompts get without reuse, each computed once."""

    def __init__(self, path: Path, drawn: dict[int, Drawn]) -> None:
        self._engine = Engine.load(path, EngineOptions(2_000_000_000, CONTEXT, max_sequences=1))
        self._drawn = drawn
        self._known: dict[tuple[int, ...], Drawn] = {}

    def __call__(self, ids: tuple[int, ...]) -> Drawn:
        if ids not in self._known:
            self._drawn.pop(0, None)
            play(self._engine, {0: Visitor(ids, SAMPLING)})
            self._known[ids] = self._drawn.pop(0)
        return self._known[ids]


@pytest.fixture(scope="module")
def expected(pack_path: Path, drawn: dict[int, Drawn]) -> Expected:
    return Expected(pack_path, drawn)


def prompt(parts: list[tuple[int, int]]) -> tuple[int, ...]:
    """Made of few parts, each a seed and how many tokens, so that prompts share beginnings."""
    ids = [token for seed, size in parts for token in stream(seed)[:size]]
    return tuple(ids[: CONTEXT - 20]) or (1,)


def stream(seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, SMALL.vocab_size - 4, 60)]


def visitor(ids: tuple[int, ...], tenant: str, comes: int, stays: int) -> Visitor:
    return Visitor(ids, SAMPLING, tenant, comes, comes + stays)


visitors = st.builds(
    visitor,
    ids=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 15, 16, 24, 40, 47, 60])), min_size=1, max_size=3
    ).map(prompt),
    tenant=st.sampled_from(["", "a"]),
    comes=st.integers(0, 120),
    stays=st.sampled_from([3, 17, *[NEVER] * 6]),
)


@settings(max_examples=25)
@given(
    asked=st.lists(visitors, min_size=2, max_size=9),
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
    asked: list[Visitor],
    chunk: int | None,
    places: int,
    block_rows: int,
    num_snapshots: int,
    on_disk: bool,
) -> None:
    wanted = [expected(visitor.ids) for visitor in asked]
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
    engine = Engine.load(pack_path, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "BLOCK_ROWS", block_rows)
        outcomes = play(engine, dict(enumerate(asked)))
    prefixes = engine.stats().prefixes
    engine.close()
    for job, want in enumerate(wanted):
        if outcomes[job].end == CancelledError.__name__:
            assert asked[job].leaves < NEVER
            want = want[: len(drawn[job])]
        assert drawn[job] == want
        assert outcomes[job].stats.reused_tokens < len(asked[job].ids)
    assert prefixes.reused_tokens == sum(outcome.stats.reused_tokens for outcome in outcomes.values())
