"""Snapshots take the memory that was planned for them, also while they are made, and give it back."""

import dataclasses
from pathlib import Path

from edge.budget import peak_resident_bytes, resident_bytes
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.prefix.snapshot import snapshot_bytes
from edge.sampler import SamplingParams

MIB = 1024**2
CONTEXT = 1024
# Caches of 8 KiB per token: a snapshot is what counts here, not the small change of an interpreter.
CONFIG = dataclasses.replace(SMALL, head_dim=512, num_attention_heads=2, eos_token_ids=(9999,))


def ask(engine: Engine, numbers: range) -> None:
    for number in numbers:
        list(engine.generate([number, *range(number, number + 400)], SamplingParams(max_tokens=30)))


def test_snapshots_stay_within_their_memory_and_give_it_back(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "checkpoint", CONFIG, tokenizer=False)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack"), "--bits", "4"]) == 0
    budget = 6 * snapshot_bytes(CONFIG, 440)
    assert budget > 20 * MIB
    options = EngineOptions(2_000_000_000, CONTEXT, chunk_tokens=64, max_sequences=1, prefix_memory_bytes=budget)
    engine = Engine.load(tmp_path / "pack", options)
    ask(engine, range(6))  # two snapshots each: the budget is full
    assert engine.stats().prefixes.held_bytes > 0.8 * budget
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident_bytes()
    ask(engine, range(6, 12))
    # Room is made before a copy, not after it; what numpy holds for a moment is well below a snapshot.
    assert peak_resident_bytes() - before < snapshot_bytes(CONFIG, 440)
    assert engine.stats().prefixes.held_bytes <= budget
    full = resident_bytes()
    engine.forget("")
    assert full - resident_bytes() > 0.8 * budget
    engine.close()
