"""The engine with an MTP layer: when it drafts, what it says of it, and what it does without where memory is short."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from edge.budget import PAGE_BYTES, state_bytes
from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.engine import Engine
from edge.engine_options import EngineOptions, Speculate
from edge.engine_parts import planned
from edge.errors import BudgetError, RequestError
from edge.prefix.snapshot import snapshot_bytes
from edge.sampler import SamplingParams
from edge.server.node_options import NodeOptions
from edge.state import SequenceState, fixed_bytes, kv_token_bytes
from tests.property.failing import streaming

CONFIG = replace(SMALL, num_mtp_layers=1)
OPTIONS = EngineOptions(2_000_000_000, 128, max_sequences=2)
PROMPT = list(range(3, 30))
SAMPLED = SamplingParams(max_tokens=20, temperature=0.8, seed=3)


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), num_mtp_layers=1)


@pytest.fixture(scope="module")
def plain_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), num_mtp_layers=0)


def make_pack(work: Path, num_mtp_layers: int) -> Path:
    write_random_checkpoint(work / "checkpoint", replace(SMALL, num_mtp_layers=num_mtp_layers), tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture
def engine(pack_path: Path) -> Iterator[Engine]:
    engine = Engine.load(pack_path, replace(OPTIONS, speculate="always", draft_tokens=2))
    yield engine
    engine.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speculate": "yes"}, "speculate is 'yes': it must be one of auto, always, off"),
        ({"draft_tokens": 0}, "draft_tokens is 0: it must be 1 to 8"),
        ({"draft_tokens": 9}, "draft_tokens is 9: it must be 1 to 8"),
    ],
)
def test_options_out_of_range_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(OPTIONS, **change)  # type: ignore[arg-type]


def test_a_node_refuses_too_many_drafts() -> None:
    with pytest.raises(Exception, match="draft_tokens is 9: it must be 1 to 8"):
        NodeOptions(Path("m"), "h", 0, 0, 1, 1, 1, 1, 1.0, 1.0, draft_tokens=9)


def test_drafts_are_counted_by_request_and_for_the_engine(engine: Engine) -> None:
    tokens = list(engine.generate(PROMPT, SAMPLED))
    first = engine.last
    assert first.drafted_tokens > first.accepted_tokens >= 0
    list(engine.generate(PROMPT[:5], SAMPLED))
    stats = engine.stats().speculation
    assert stats.drafted_tokens == first.drafted_tokens + engine.last.drafted_tokens
    assert stats.accepted_tokens == first.accepted_tokens + engine.last.accepted_tokens
    assert 0 <= stats.acceptance < 1
    # The first token comes with the prompt, the last one needs no guess behind it.
    assert first.drafted_tokens <= 2 * (len(tokens) - 1)


def test_an_answer_of_one_token_drafts_nothing(engine: Engine) -> None:
    assert len(list(engine.generate(PROMPT, SamplingParams(max_tokens=1)))) == 1
    assert engine.last.drafted_tokens == 0


def test_by_default_it_tries_whether_drafting_pays(pack_path: Path) -> None:
    engine = Engine.load(pack_path, OPTIONS)
    list(engine.generate(PROMPT, SAMPLED))
    assert 0 < engine.last.drafted_tokens < 19
    engine.close()


@pytest.mark.parametrize("change", [{"speculate": "off"}, {"substitute": 0.05}])
def test_without_it_all_is_as_if_there_were_no_such_layer(
    pack_path: Path, plain_path: Path, change: dict[str, object]
) -> None:
    found = []
    for path in (pack_path, plain_path):
        engine = Engine.load(path, replace(OPTIONS, **change))  # type: ignore[arg-type]
        tokens = list(engine.generate(PROMPT, SAMPLED))
        found.append((tokens, engine.config, engine.plan, engine.last.drafted_tokens))
        engine.close()
    assert found[0] == found[1]


def test_a_pack_without_the_layer_has_nothing_to_draft_with(plain_path: Path) -> None:
    engine = Engine.load(plain_path, replace(OPTIONS, speculate="always"))
    assert len(list(engine.generate(PROMPT, SAMPLED))) == 20
    assert engine.stats().speculation.drafted_tokens == 0
    engine.close()


def test_the_layer_gives_way_to_a_tight_budget_unless_it_must_be_there(pack_path: Path) -> None:
    least = least_memory(pack_path, replace(OPTIONS, speculate="off"))
    tight = replace(OPTIONS, memory_bytes=least)
    with structlog.testing.capture_logs() as logs:
        engine = Engine.load(pack_path, tight)
    assert "no_memory_for_drafting" in [entry["event"] for entry in logs]
    assert engine.config.num_mtp_layers == 0
    engine.close()
    with pytest.raises(BudgetError, match="needs at least"):
        Engine.load(pack_path, replace(tight, speculate="always"))


@pytest.mark.parametrize(
    ("speculate", "slots", "num_mtp_layers"),
    [("auto", 100, 0), ("auto", 200, 1), ("always", 100, 1)],  # of 320 experts
)
def test_where_most_experts_stream_they_get_the_memory_of_the_layer(
    pack_path: Path, speculate: Speculate, slots: int, num_mtp_layers: int
) -> None:
    engine = Engine.load(pack_path, replace(OPTIONS, expert_slots=slots, speculate=speculate))
    assert engine.config.num_mtp_layers == num_mtp_layers
    engine.close()


def test_where_dense_layers_stream_a_pass_of_two_tokens_reads_them_once(
    pack_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.engine_parts.planned", lambda *given: streaming(planned(*given)))
    engine = Engine.load(pack_path, replace(OPTIONS, expert_slots=100))
    assert engine.config.num_mtp_layers == 1
    engine.close()


def least_memory(path: Path, options: EngineOptions) -> int:
    """To the next 64 kB."""
    low, high = 0, options.memory_bytes
    pack = Pack.open(path).without_mtp()
    while high - low > 65536:
        middle = (low + high) // 2
        try:
            planned(pack, replace(options, memory_bytes=middle))
        except BudgetError:
            low = middle
        else:
            high = middle
    return high


def test_the_state_has_the_bytes_that_are_planned_for_it() -> None:
    state = SequenceState(CONFIG, 100, num_spares=3)
    layers = [*state.layers, *(layer for spare in state.spares for layer in spare.values())]
    found = sum(getattr(layer, name).nbytes for layer in layers for name in layer.__slots__)
    caches = 2 * CONFIG.all_layer_types.count("full_attention")
    assert state_bytes(CONFIG, 1, 100, draft_tokens=3) == found + caches * PAGE_BYTES
    assert kv_token_bytes(CONFIG) == 2 * kv_token_bytes(SMALL)
    assert snapshot_bytes(CONFIG, 100) >= fixed_bytes(CONFIG) + 100 * kv_token_bytes(CONFIG)


def test_snapshots_with_and_without_the_layer_do_not_mix(pack_path: Path, tmp_path: Path) -> None:
    """On disk each engine finds its own, and neither takes the other's for damaged."""
    options = replace(
        OPTIONS, prefix_memory_bytes=None, prefix_disk_bytes=100_000_000, prefix_dir=tmp_path, speculate="always"
    )
    answers, reused = [], []
    for speculate in ("always", "off", "always", "off"):
        engine = Engine.load(pack_path, replace(options, speculate=speculate))
        answers.append(list(engine.generate(PROMPT * 3, SAMPLED)))
        reused.append(engine.last.reused_tokens > 0)
        engine.close()
    assert all(answer == answers[0] for answer in answers)
    assert reused == [False, False, True, True]
