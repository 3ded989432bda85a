"""Only states that follow from their tokens alone are kept for later prompts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.checkpoint.random_model import write_random_checkpoint
from edge.cli import main
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.events import Finished, GenerationStats
from edge.sampler import SamplingParams

OPTIONS = EngineOptions(2_000_000_000, 128, prefix_memory_bytes=40_000_000)
PROMPT = [(7 * i) % 400 for i in range(40)]


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture
def engines() -> Iterator[list[Engine]]:
    """Closed at the end."""
    engines: list[Engine] = []
    yield engines
    for engine in engines:
        engine.close()


def loaded(engines: list[Engine], pack: Path, options: EngineOptions) -> Engine:
    engines.append(Engine.load(pack, options))
    return engines[-1]


def answered(engine: Engine, ids: list[int]) -> tuple[list[int], GenerationStats]:
    engine.submit(1, ids, SamplingParams(max_tokens=30))
    tokens, stats = [], GenerationStats(0)
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Finished):
                stats = event.stats
            elif hasattr(event, "token"):
                tokens.append(event.token)
    return tokens, stats


def test_what_was_computed_with_stand_ins_is_not_kept(engines: list[Engine], pack: Path) -> None:
    engine = loaded(engines, pack, replace(OPTIONS, expert_slots=24, substitute=0.5))
    tokens, first = answered(engine, PROMPT)
    assert first.routing.substituted > 0
    _, second = answered(engine, [*PROMPT, *tokens, 5])
    assert second.reused_tokens <= len(PROMPT)  # of the prompt, which no stand-in touched
    assert second.reused_tokens > 0


def test_without_a_stand_in_the_answer_is_kept_as_ever(engines: list[Engine], pack: Path) -> None:
    engine = loaded(engines, pack, replace(OPTIONS, expert_slots=24, substitute=0.001))
    tokens, first = answered(engine, PROMPT)
    assert first.routing.substituted == 0
    _, second = answered(engine, [*PROMPT, *tokens, 5])
    assert second.reused_tokens >= len(PROMPT) + 16


def test_a_snapshot_on_disk_serves_only_as_many_experts_as_made_it(
    engines: list[Engine], pack: Path, tmp_path: Path
) -> None:
    options = replace(OPTIONS, prefix_dir=tmp_path / "prefixes", prefix_disk_bytes=100_000_000)
    (tmp_path / "prefixes").mkdir(mode=0o700)
    for experts, reused in ((2, False), (None, False), (2, True), (4, True)):  # 4 are the model's own
        engine = Engine.load(pack, replace(options, experts_per_token=experts))
        _, stats = answered(engine, PROMPT)
        assert (stats.reused_tokens > 0) == reused
        engine.close()
