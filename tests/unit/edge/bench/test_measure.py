"""A short workload on a real engine: what is counted, pass by pass."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.bench.measure import engine_context, measure
from edge.bench.workload import Workload
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import StorageError
from edge.profiling import ATTENTION, DELTANET, EXPERTS, HEAD, Stopwatch

WORKLOAD = Workload(prompt_tokens=20, tokens=3, warmup=2, sequences=2)


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    write_random_checkpoint(tmp_path / "checkpoint", tokenizer=False)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack"), "--bits", "4"]) == 0
    return tmp_path / "pack"


@pytest.fixture
def watch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def engine(pack: Path, watch: Stopwatch) -> Iterator[Engine]:
    options = EngineOptions(
        memory_bytes=2_000_000_000,
        context_tokens=engine_context(WORKLOAD),
        threads=1,
        chunk_tokens=8,
        expert_slots=24,
        max_sequences=WORKLOAD.sequences,
    )
    engine = Engine.load(pack, options, watch=watch)
    yield engine
    engine.close()


def test_what_is_done_between_passes_is_not_counted(engine: Engine, watch: Stopwatch) -> None:
    waited: list[float] = []

    def wait() -> None:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.02:
            pass
        waited.append(time.perf_counter() - began)

    began = time.perf_counter()
    decode = measure(engine, watch, WORKLOAD, lambda _: None, wait).decode
    assert len(waited) == WORKLOAD.tokens
    assert sum(decode.seconds_by_kind.values()) <= time.perf_counter() - began - sum(waited)


def test_passes_tokens_and_experts_are_counted(engine: Engine, watch: Stopwatch) -> None:
    phases: list[str] = []
    measured = measure(engine, watch, WORKLOAD, phases.append)
    assert len(measured.prefill.pass_seconds) == 3  # chunks of 8, 8 and 4
    assert (measured.prefill.tokens, measured.decode.tokens) == (20, 3 * 2)
    assert len(measured.decode.pass_seconds) == 3
    for phase in (measured.prefill, measured.decode):
        # More, if guesses of what comes next were read too.
        assert 0 < phase.misses * engine.pack.experts.block_bytes <= phase.read_bytes
        assert phase.seconds <= sum(phase.seconds_by_kind.values())
        assert all(phase.seconds_by_kind[kind] > 0 for kind in (ATTENTION, DELTANET, EXPERTS, HEAD))
    # Two tokens in a pass choose at least the experts of one, and share some.
    assert SMALL.top_k <= measured.decode.lookups / 3 / SMALL.num_layers <= 2 * SMALL.top_k
    assert measured.ttft_seconds == measured.prefill.seconds
    assert set(phases) == {"warm-up", "prompt", "prompts", "decode"}
    assert not engine.has_work


def test_a_request_that_fails_ends_the_run(engine: Engine, watch: Stopwatch) -> None:
    for path in engine.pack.expert_paths:
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(StorageError, match="checksum"):
        measure(engine, watch, WORKLOAD, lambda _: None)
