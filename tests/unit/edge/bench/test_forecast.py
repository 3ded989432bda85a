"""What follows from given rates: no probe, no timing."""

from pathlib import Path

import numpy as np
import pytest

from edge.bench.forecast import SKEWED, Assumptions, costs_at, expected_routing, forecast, traced_routing
from edge.bench.forecast_table import forecast_table
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.engine_options import EngineOptions
from edge.errors import BudgetError, TraceError
from edge.experts.trace import Trace, TraceWriter
from tests.unit.edge.bench.samples import WEIGHTS

GIVEN = Assumptions(disk_rate=1e9, compute_rate=1e10, prompt_tokens=40)
OPTIONS = EngineOptions(memory_bytes=2_000_000_000, context_tokens=64, threads=1, chunk_tokens=16, expert_slots=64)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A prompt, then four passes of two layers, of which the first always asks for the same experts."""
    path = tmp_path / "trace"
    with TraceWriter(path) as writer:
        writer.record(0, [0, 1, 2, 3], True)
        writer.record(1, [0, 1, 2, 3], True)
        for step in range(4):
            writer.record(0, [8, 9], False)
            writer.record(1, [10 + 2 * step, 11 + 2 * step], False)
    return path


def test_a_budget_that_is_too_small_is_refused_before_anything_is_measured(pack: Path) -> None:
    with pytest.raises(BudgetError, match="needs at least"):
        forecast(pack, EngineOptions(memory_bytes=1_000_000), Assumptions())


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace").write_bytes(b"nonsense")
    with pytest.raises(TraceError):
        expected_routing(SMALL, 10, 1, Assumptions(trace=tmp_path / "trace"))


def test_given_rates_decide_everything(pack: Path) -> None:
    figures = forecast(pack, OPTIONS, GIVEN)
    assert (figures["disk_bytes_per_second"], figures["disk_rate_is"], figures["compute_rate_is"]) == (
        1e9,
        "given",
        "given",
    )
    # 64 slots for 4 layers of 64 experts.
    assert figures["cache_hit_rate"] == pytest.approx(0.25)
    assert figures["experts_per_layer"] == pytest.approx(SMALL.top_k)
    assert figures["disk_bytes_per_pass"] == pytest.approx(4 * SMALL.top_k * 0.75 * figures["expert_block_bytes"])
    assert figures["compute_seconds"] == pytest.approx(figures["ram_bytes_per_pass"] / 1e10)
    assert figures["pass_seconds"] == figures["compute_seconds"] + figures["wait_seconds"]
    assert forecast(pack, OPTIONS, Assumptions(disk_rate=1e12, compute_rate=1e10))["wait_seconds"] < 1e-6


def test_a_prompt_reads_what_its_chunks_need(pack: Path) -> None:
    figures = forecast(pack, OPTIONS, GIVEN)
    # Chunks of 16, 16 and 8 tokens, each with the experts of a layer that at least one of its tokens chooses.
    chosen = [64 * (1 - (1 - SMALL.top_k / 64) ** tokens) for tokens in (16, 16, 8)]
    expected = 4 * 0.75 * sum(chosen) * figures["expert_block_bytes"]
    assert figures["prefill_disk_bytes"] == pytest.approx(expected)
    assert figures["prefill_disk_seconds"] == pytest.approx(expected / 1e9)


def test_skewed_routing_hits_more_often() -> None:
    even, skewed = (expected_routing(SMALL, 32, 1, Assumptions(routing=r)) for r in ("uniform", SKEWED))
    assert skewed.hit_rate > even.hit_rate + 0.1


def test_a_trace_is_replayed_with_the_slots_that_there_are(trace: Path) -> None:
    routing = traced_routing(Trace.read(trace), num_slots=6)
    assert routing.lookups == 2
    assert routing.hit_rate == pytest.approx(3 * 2 / 16)  # the first layer's, from the second pass on


def test_a_trace_of_prompts_alone_predicts_no_decoding(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "prompts.trace") as writer:
        writer.record(0, [1, 2], True)
    with pytest.raises(TraceError, match="no pass that only decodes"):
        traced_routing(Trace.read(tmp_path / "prompts.trace"), num_slots=6)


def test_computation_at_a_rate_is_the_weights_by_the_rate() -> None:
    costs = costs_at(WEIGHTS, 50.0)
    assert costs.compute_seconds(lookups=5) == pytest.approx((1000 + 5 * 10) / 50)
    assert np.isclose(costs.expert_seconds, 10 / 50)


def test_the_table_names_the_terms(pack: Path) -> None:
    text = forecast_table(forecast(pack, OPTIONS, GIVEN))
    for words in ("64 of 256; 25.0% of look-ups", "tokens/s: a pass takes", "+ wait", "(given)", "of 40 tokens"):
        assert words in text, words
    assert all(len(line) <= 110 for line in text.splitlines())
