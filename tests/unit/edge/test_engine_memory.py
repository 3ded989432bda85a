"""What the engine's process holds: places are used again, long prompts need no memory of their square."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edge.budget import peak_resident_bytes, resident_bytes
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.config import FULL_ATTENTION, LINEAR_ATTENTION, ModelConfig
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.sampler import SamplingParams
from edge.state import StatePool, kv_token_bytes

MIB = 1024**2
TINY = dataclasses.replace(
    SMALL,
    hidden_size=16,
    num_layers=2,
    layer_types=(LINEAR_ATTENTION, FULL_ATTENTION),
    num_attention_heads=1,
    num_kv_heads=1,
    head_dim=8,
    num_key_heads=1,
    num_value_heads=1,
    key_head_dim=8,
    value_head_dim=8,
    num_experts=4,
    top_k=2,
    expert_size=8,
    shared_expert_size=8,
)


def load(work: Path, config: ModelConfig, context_tokens: int, *, places: int) -> Engine:
    write_random_checkpoint(work / "checkpoint", config, tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "16"]) == 0
    return Engine.load(work / "pack", EngineOptions(2_000_000_000, context_tokens, max_sequences=places))


def run_requests(engine: Engine, jobs: range, ids: Callable[[int], list[int]]) -> None:
    """So many requests, a few of them cancelled in the middle."""
    for job in jobs:
        engine.submit(job, ids(job), SamplingParams(max_tokens=2))
        if job % 7 == 0:
            engine.cancel(job - 1)
        engine.step()
    while engine.has_work:
        engine.step()


def test_a_thousand_requests_leave_the_memory_as_a_hundred_do(tmp_path: Path) -> None:
    engine = load(tmp_path, TINY, 256, places=4)

    def ids(job: int) -> list[int]:
        return [job % 500] * (1 + 37 * job % 200)

    run_requests(engine, range(100), ids)
    before = resident_bytes()
    run_requests(engine, range(100, 1100), ids)
    engine.close()
    assert resident_bytes() - before < MIB


def test_a_sequence_that_ends_gives_the_pages_of_its_cache_back() -> None:
    config = dataclasses.replace(SMALL, head_dim=256)
    pool = StatePool(config, 2, 16_384)
    cache_bytes = 16_384 * kv_token_bytes(config)
    assert cache_bytes > 60 * MIB
    state = pool.take()
    before = resident_bytes()
    for layer, kind in enumerate(config.layer_types):
        if kind == FULL_ATTENTION:
            state.kv_cache(layer).keys.fill(1)
            state.kv_cache(layer).values.fill(1)
    assert resident_bytes() - before >= cache_bytes * 0.95
    pool.give_back(state)
    assert resident_bytes() - before < MIB


def test_a_prompt_of_32768_tokens_needs_memory_for_a_chunk_and_not_for_its_square(tmp_path: Path) -> None:
    num_tokens = 32_768
    engine = load(tmp_path, TINY, num_tokens, places=1)
    ids = np.random.default_rng(1).integers(0, TINY.vocab_size, num_tokens).tolist()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident_bytes()
    tokens = list(engine.generate(ids, SamplingParams(max_tokens=1)))
    grown = peak_resident_bytes() - before
    engine.close()
    assert len(tokens) == 1
    plan = engine.plan
    assert plan.chunk_tokens <= num_tokens / 8
    # One score of each pair of tokens would take 4 GB.
    assert grown <= plan.state_bytes + plan.scratch_bytes + plan.expert_bytes
