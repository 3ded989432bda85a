"""Our logits against those of transformers, the reference implementation, on checkpoints that it wrote."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import transformers
from numpy.typing import NDArray

from edge.cli import main
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.sampler import SamplingParams
from tests.conformance.checkpoints import Checkpoint, clear_prompt, load, oracle_logits

NUM_TOKENS = 300
LENGTHS = (1, 2, 7, 64, 65)
MEMORY_BYTES = 2_000_000_000
# What the project promises, as relative L2 error at every position.
LIMITS = {16: 1e-3, 8: 2e-2, 4: 2e-2, 3.4: 2e-2, 3: 2e-2, 2: 2e-2}


@dataclass(frozen=True)
class Packed:
    """A checkpoint packed by us, and transformers over the very weights that the pack holds."""

    path: Path
    bits: float
    oracle: transformers.PreTrainedModel
    ids: list[int]


@pytest.fixture(scope="module", params=[*LIMITS], ids=lambda bits: f"{bits}-bit")
def packed(request: pytest.FixtureRequest, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    bits, work = request.param, tmp_path_factory.mktemp("packed")
    if bits < 4 and not checkpoint.shape.is_of_all_bits:
        pytest.skip("experts are stored alike in all families, and nothing else goes below 4 bits")
    convert(checkpoint.path, work / "pack", bits)
    oracle = checkpoint.model
    if bits != 16:
        assert main(["export", str(work / "pack"), str(work / "exported")]) == 0
        oracle = load(work / "exported")
    return Packed(work / "pack", bits, oracle, clear_prompt(oracle, checkpoint.vocab_size, NUM_TOKENS))


@pytest.fixture(scope="module")
def engine(packed: Packed) -> Iterator[Engine]:
    engine = Engine.load(packed.path, EngineOptions(memory_bytes=MEMORY_BYTES, context_tokens=NUM_TOKENS))
    yield engine
    engine.close()


def convert(source: Path, out: Path, bits: float) -> None:
    assert main(["convert", str(source), str(out), "--bits", str(bits)]) == 0


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The greatest over all positions of |found - expected| / |expected|."""
    assert found.shape == expected.shape
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def test_every_position_is_that_of_transformers(engine: Engine, packed: Packed) -> None:
    found = engine.logits(packed.ids)
    assert relative_error(found, oracle_logits(packed.oracle, packed.ids)) < LIMITS[packed.bits]


def test_prompts_of_any_length_are_those_of_transformers(engine: Engine, packed: Packed) -> None:
    for length in LENGTHS:
        found = engine.logits(packed.ids[:length])
        assert relative_error(found, oracle_logits(packed.oracle, packed.ids[:length])) < LIMITS[packed.bits]


def test_chunks_and_decoding_change_no_bit(engine: Engine, packed: Packed) -> None:
    expected = engine.logits(packed.ids)
    for chunk, prompt_tokens in ((7, 300), (64, 290), (65, 160), (30, 0)):
        np.testing.assert_array_equal(engine.logits(packed.ids, chunk, prompt_tokens), expected)


def test_each_greedy_token_is_the_likeliest_to_transformers_or_ties_with_it(engine: Engine, packed: Packed) -> None:
    prompt = packed.ids[:20]
    tokens = list(engine.generate(prompt, SamplingParams(max_tokens=30)))
    assert len(tokens) == 30
    logits = oracle_logits(packed.oracle, prompt + tokens[:-1])[len(prompt) - 1 :]
    lost = logits.max(axis=1) - np.take_along_axis(logits, np.array(tokens)[:, None], axis=1)[:, 0]
    assert (lost <= LIMITS[packed.bits] * np.linalg.norm(logits, axis=1)).all()


@pytest.mark.parametrize("expert_slots", [1, 5])
def test_the_size_of_the_cache_changes_no_bit(engine: Engine, packed: Packed, expert_slots: int) -> None:
    options = EngineOptions(
        memory_bytes=MEMORY_BYTES, context_tokens=NUM_TOKENS, chunk_tokens=64, expert_slots=expert_slots
    )
    small = Engine.load(packed.path, options)
    try:
        assert small.logits(packed.ids, None, 250).tobytes() == engine.logits(packed.ids).tobytes()
        assert small.stats().experts_resident <= expert_slots
    finally:
        small.close()
