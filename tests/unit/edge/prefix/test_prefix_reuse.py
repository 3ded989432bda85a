"""The engine goes on where an earlier prompt has been: the same logits to the byte, and nothing half-done is kept."""

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.config import FULL_ATTENTION, LINEAR_ATTENTION, ModelConfig
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import BudgetError, PrefixDirectoryError, RequestError
from edge.events import Failed, GenerationStats, Token
from edge.prefix.snapshot import snapshot_bytes
from edge.sampler import SamplingParams
from edge.sequence import Sequence

CONTEXT = 192
OPTIONS = EngineOptions(
    memory_bytes=2_000_000_000,
    context_tokens=CONTEXT,
    chunk_tokens=24,
    max_sequences=3,
    prefix_memory_bytes=100_000_000,
)
SYSTEM = [token * 7 % 500 for token in range(70)]
ANSWER_TOKENS = 20
Drawn = list[bytes]  # a digest of the logits of each token


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", dataclasses.replace(SMALL, eos_token_ids=(9999,)), tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[int, Drawn]:
    """By job, what its tokens were drawn from."""
    digests: dict[int, Drawn] = defaultdict(list)
    original = Sequence.draw

    def draw(self: Sequence, logits: NDArray[np.float32], config: ModelConfig) -> int | None:
        digests[self.job].append(hashlib.sha256(logits.tobytes()).digest())
        return original(self, logits, config)

    monkeypatch.setattr(Sequence, "draw", draw)
    return digests


class Asker:
    """Asks one engine, and an engine without reuse for what should come out."""

    def __init__(self, engine: Engine, plain: Engine, drawn: dict[int, Drawn]) -> None:
        self.engine = engine
        self._plain = plain
        self._drawn = drawn

    def together(self, *prompts: list[int], tenant: str = "") -> list[GenerationStats]:
        """Ask for all at once and hold each answer against what it is without reuse."""
        answers, stats = self._run(self.engine, prompts, tenant)
        expected = [self._run(self._plain, [prompt], "")[0][0] for prompt in prompts]
        assert answers == expected
        return stats

    def ask(self, prompt: list[int], tenant: str = "") -> tuple[list[int], int]:
        """The answer, and how many tokens of the prompt were reused."""
        (stats,) = self.together(prompt, tenant=tenant)
        return self._answers[0], stats.reused_tokens

    def _run(
        self, engine: Engine, prompts: "list[list[int]] | tuple[list[int], ...]", tenant: str
    ) -> tuple[list[tuple[list[int], Drawn]], list[GenerationStats]]:
        self._drawn.clear()
        self._answers: list[list[int]] = [[] for _ in prompts]
        sampling = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0.7, seed=3)
        stats = [engine.submit(job, prompt, sampling, tenant) for job, prompt in enumerate(prompts)]
        while engine.has_work:
            for event in engine.step():
                assert not isinstance(event, Failed)
                if isinstance(event, Token):
                    self._answers[event.job].append(event.token)
        return [(answer, self._drawn[job]) for job, answer in enumerate(self._answers)], stats


Open = Callable[..., Asker]


@pytest.fixture(scope="module")
def plain(pack_path: Path) -> Iterator[Engine]:
    engine = Engine.load(pack_path, dataclasses.replace(OPTIONS, prefix_memory_bytes=0))
    yield engine
    assert engine.stats().prefixes == type(engine.stats().prefixes)()
    engine.close()


@pytest.fixture
def open_asker(pack_path: Path, plain: Engine, drawn: dict[int, Drawn]) -> Iterator[Open]:
    engines = []

    def open_asker(**changes: object) -> Asker:
        engines.append(Engine.load(pack_path, dataclasses.replace(OPTIONS, **changes)))  # type: ignore[arg-type]
        return Asker(engines[-1], plain, drawn)

    yield open_asker
    for engine in engines:
        engine.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefix_memory_bytes": -1}, "prefix_memory_bytes is -1: it must be at least 0"),
        ({"prefix_disk_bytes": -1}, "prefix_disk_bytes is -1: it must be at least 0"),
        ({"prefix_disk_bytes": 1}, "prefix_dir and prefix_disk_bytes go together"),
        ({"prefix_dir": Path("x")}, "prefix_dir and prefix_disk_bytes go together"),
        (
            {"prefix_dir": Path("x"), "prefix_disk_bytes": 1, "prefix_memory_bytes": 0},
            "prefix_memory_bytes is 0: snapshots reach prefix_dir through memory",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dataclasses.replace(OPTIONS, **changes)  # type: ignore[arg-type]


def test_memory_for_prefixes_beyond_the_budget_is_refused(pack_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"needs at least 3\.\d GB"):
        Engine.load(pack_path, dataclasses.replace(OPTIONS, prefix_memory_bytes=3 * 10**9))


def test_the_planner_gives_a_twentieth_where_that_holds_a_full_context(open_asker: Open) -> None:
    assert open_asker(prefix_memory_bytes=None).engine.plan.prefix_bytes == 100_000_000
    full = snapshot_bytes(SMALL, 32768)
    assert full > 250_000_000 // 20
    small = open_asker(prefix_memory_bytes=None, memory_bytes=250_000_000, context_tokens=32768, max_sequences=1)
    assert small.engine.plan.prefix_bytes == 0


def test_a_disk_gets_memory_for_a_full_context_to_pass_through(open_asker: Open, tmp_path: Path) -> None:
    asker = open_asker(
        prefix_memory_bytes=None,
        memory_bytes=250_000_000,
        context_tokens=32768,
        max_sequences=1,
        prefix_dir=tmp_path / "d",
        prefix_disk_bytes=10**9,
    )
    assert asker.engine.plan.prefix_bytes == snapshot_bytes(SMALL, 32768) > 250_000_000 // 20


def test_the_next_turn_costs_only_what_is_new(open_asker: Open) -> None:
    asker = open_asker()
    answer, reused = asker.ask(SYSTEM)
    assert reused == 0
    turn = SYSTEM + answer + [11, 12, 13]
    # The last token drawn has not gone through the model.
    assert asker.ask(turn)[1] == len(SYSTEM) + ANSWER_TOKENS - 1
    prefixes = asker.engine.stats().prefixes
    assert (prefixes.hits, prefixes.misses, prefixes.reused_tokens) == (1, 1, len(SYSTEM) + ANSWER_TOKENS - 1)


def test_a_next_turn_that_renders_the_answer_otherwise_goes_on_before_it(open_asker: Open) -> None:
    asker = open_asker()
    asker.ask(SYSTEM)
    rendered = SYSTEM[:-3] + [400, 401, 402, 403] + [11] * 20
    assert asker.ask(rendered)[1] == len(SYSTEM) - 8


def test_the_same_prompt_again_is_computed_from_its_last_tokens(open_asker: Open) -> None:
    asker = open_asker()
    first, _ = asker.ask(SYSTEM)
    again, reused = asker.ask(SYSTEM)
    assert again == first
    assert reused == len(SYSTEM) - 8


def test_a_prompt_that_is_a_snapshot_s_own_prefix_leaves_its_last_token_to_compute(open_asker: Open) -> None:
    asker = open_asker()
    asker.ask(SYSTEM)
    kept = len(SYSTEM) - 8
    assert asker.ask(SYSTEM[: kept + 1])[1] == kept
    assert asker.ask(SYSTEM[:kept])[1] == 0


def test_a_shared_system_prompt_is_kept_when_it_comes_for_the_second_time(open_asker: Open) -> None:
    asker = open_asker()
    reused = [asker.ask(SYSTEM + [300 + user] * 40)[1] for user in range(3)]
    assert reused == [0, 0, 64]  # 70 shared tokens are 4 whole blocks; chunks of 24 do not end there


@pytest.mark.parametrize("shared", [15, 16, 17, 24, 31, 48, 63])
def test_prompts_may_part_anywhere_in_a_chunk(open_asker: Open, shared: int) -> None:
    asker = open_asker()
    reused = [asker.ask(SYSTEM[:shared] + [300 + user] * 50)[1] for user in range(4)]
    assert reused == [0, 0, *[shared // 16 * 16] * 2]


def test_the_same_prompt_many_times_at_once_leaves_one_copy(open_asker: Open) -> None:
    asker = open_asker()
    asker.together(SYSTEM, SYSTEM, SYSTEM)
    prefixes = asker.engine.stats().prefixes
    assert (prefixes.kept, prefixes.snapshots) == (2, 2)
    assert prefixes.held_bytes == snapshot_bytes(SMALL, len(SYSTEM) - 8) + snapshot_bytes(
        SMALL, len(SYSTEM) + ANSWER_TOKENS - 1
    )


@pytest.mark.parametrize("kind", [FULL_ATTENTION, LINEAR_ATTENTION])
def test_models_with_one_kind_of_layer_reuse_as_well(tmp_path: Path, drawn: dict[int, Drawn], kind: str) -> None:
    config = dataclasses.replace(SMALL, layer_types=(kind,) * 4, eos_token_ids=(9999,))
    write_random_checkpoint(tmp_path / "checkpoint", config, tokenizer=False)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack"), "--bits", "4"]) == 0
    plain = Engine.load(tmp_path / "pack", dataclasses.replace(OPTIONS, prefix_memory_bytes=0))
    asker = Asker(Engine.load(tmp_path / "pack", OPTIONS), plain, drawn)
    reused = [asker.ask(SYSTEM + [300 + user] * 40)[1] for user in range(3)]
    assert reused == [0, 0, 64]
    asker.engine.close()
    plain.close()


def test_sequences_that_come_together_share_a_prefix(open_asker: Open) -> None:
    asker = open_asker()
    first = asker.together(*(SYSTEM + [300 + user] * (30 + user) for user in range(3)))
    assert [stats.reused_tokens for stats in first] == [0, 0, 0]
    then = asker.together(*(SYSTEM + [320 + user] * (30 + user) for user in range(5)))
    assert [stats.reused_tokens for stats in then] == [64] * 5
    prefixes = asker.engine.stats().prefixes
    assert (prefixes.hits, prefixes.misses, prefixes.reused_tokens) == (5, 3, 320)
    assert prefixes.held_bytes <= asker.engine.plan.prefix_bytes


def test_no_tenant_meets_another_s_prompt(open_asker: Open) -> None:
    asker = open_asker()
    for tenant in ("", "a", "b", "a\0"):
        for prompt in (SYSTEM, [*SYSTEM, 5, 6, 7]):
            assert asker.ask(prompt, tenant)[1] == (0 if prompt is SYSTEM else len(SYSTEM) - 8)
    prefixes = asker.engine.stats().prefixes
    assert (prefixes.hits, prefixes.misses) == (4, 4)


def test_a_tenant_s_prompts_make_no_boundary_in_another_s(open_asker: Open) -> None:
    asker = open_asker()
    asker.ask(SYSTEM + [300] * 40, "a")
    asker.ask(SYSTEM + [301] * 40, "b")
    kept = asker.engine.stats().prefixes.kept
    assert kept == 4  # of each, before its end and behind its answer
    assert asker.ask(SYSTEM + [302] * 40, "b")[1] == 0


def test_memory_pressure_costs_reuse_and_never_correctness(open_asker: Open) -> None:
    budget = 2 * snapshot_bytes(SMALL, 90)
    asker = open_asker(prefix_memory_bytes=budget)
    for turn in range(6):
        asker.ask([*SYSTEM[turn:], turn])
        assert asker.engine.stats().prefixes.held_bytes <= budget
    assert asker.ask(SYSTEM)[1] == 0
    prefixes = asker.engine.stats().prefixes
    assert prefixes.kept > prefixes.snapshots > 0


def test_a_budget_below_one_snapshot_keeps_nothing(open_asker: Open) -> None:
    asker = open_asker(prefix_memory_bytes=1000)
    assert [asker.ask(SYSTEM)[1] for _ in range(2)] == [0, 0]
    assert asker.engine.stats().prefixes.held_bytes == 0


def layer_counter(number: int, act: Callable[[], None]) -> Callable[[], None]:
    """A pulse that acts before one layer, counted over passes from 1."""
    layers = 0

    def pulse() -> None:
        nonlocal layers
        layers += 1
        if layers == number:
            act()

    return pulse


@pytest.mark.parametrize("layer", [2, 5, 9, 10, 12])
def test_a_request_that_is_cancelled_in_a_pass_leaves_nothing_half_computed(open_asker: Open, layer: int) -> None:
    asker = open_asker(chunk_tokens=24)
    engine = asker.engine
    engine.submit(7, SYSTEM, SamplingParams(max_tokens=5))
    pulse = layer_counter(layer, lambda: engine.cancel(7))
    while engine.has_work:
        engine.step(pulse)
    # 70 tokens in chunks of 24 through 4 layers: the copy at 62 is whole only after the third pass.
    prefixes = engine.stats().prefixes
    assert (prefixes.kept, prefixes.held_bytes) == (0, 0)
    assert asker.ask(SYSTEM)[1] == 0


def test_a_request_that_is_cancelled_while_decoding_leaves_its_prompt(open_asker: Open) -> None:
    asker = open_asker()
    engine = asker.engine
    engine.submit(7, SYSTEM, SamplingParams(max_tokens=50))
    while not any(isinstance(event, Token) for event in engine.step()):
        pass
    pulse = layer_counter(2, lambda: engine.cancel(7))
    while engine.has_work:
        engine.step(pulse)
    assert engine.stats().prefixes.kept == 1
    assert asker.ask(SYSTEM)[1] == len(SYSTEM) - 8


def test_a_request_whose_experts_cannot_be_read_leaves_nothing(
    pack_path: Path, open_asker: Open, tmp_path: Path
) -> None:
    asker = open_asker(expert_slots=5)
    engine = asker.engine
    path = engine.pack.expert_paths[3]
    content = path.read_bytes()
    altered = bytearray(content)
    for start in range(0, len(content), engine.pack.experts.block_bytes):
        altered[start + 17] ^= 1
    path.write_bytes(altered)
    try:
        engine.submit(7, SYSTEM, SamplingParams(max_tokens=5))
        events = []
        while engine.has_work:
            events += engine.step()
        assert isinstance(events[-1], Failed)
    finally:
        path.write_bytes(content)
    prefixes = engine.stats().prefixes
    assert (prefixes.kept, prefixes.held_bytes) == (0, 0)
    assert asker.ask(SYSTEM)[1] == 0


def test_what_is_on_disk_outlives_the_engine(open_asker: Open, tmp_path: Path) -> None:
    on_disk = {"prefix_dir": tmp_path / "d", "prefix_disk_bytes": 10**9}
    first = open_asker(**on_disk)
    answer, _ = first.ask(SYSTEM, "a")
    first.ask(SYSTEM + [300] * 40, "a")
    first.engine.close()
    second = open_asker(**on_disk)
    assert second.ask(SYSTEM + answer + [11] * 20, "a")[1] == len(SYSTEM) + ANSWER_TOKENS - 1
    assert second.ask(SYSTEM, "a")[1] == len(SYSTEM) - 8
    assert second.ask(SYSTEM, "b")[1] == 0
    prefixes = second.engine.stats().prefixes
    assert (prefixes.hits, prefixes.disk_hits, prefixes.misses) == (2, 2, 1)


def test_what_left_memory_comes_back_from_disk(open_asker: Open, tmp_path: Path) -> None:
    budget = 2 * snapshot_bytes(SMALL, 120)
    asker = open_asker(prefix_memory_bytes=budget, prefix_dir=tmp_path / "d", prefix_disk_bytes=10**9)
    for turn in range(6):
        asker.ask(SYSTEM[turn:] + [turn] * 9)
        asker.engine._prefixes._writer.drain()  # type: ignore[union-attr]
        assert asker.engine.stats().prefixes.held_bytes <= budget
    assert asker.ask(SYSTEM + [0] * 9)[1] == len(SYSTEM) + 1
    assert asker.engine.stats().prefixes.disk_hits == 1


def test_damaged_files_cost_reuse_and_never_an_error(open_asker: Open, tmp_path: Path) -> None:
    on_disk = {"prefix_dir": tmp_path / "d", "prefix_disk_bytes": 10**9}
    first = open_asker(**on_disk)
    first.ask(SYSTEM)
    first.engine.close()
    files = sorted((tmp_path / "d").glob("*.prefix"))
    assert len(files) == 2
    second = open_asker(**on_disk)
    for file in files:
        content = bytearray(file.read_bytes())
        content[-5000] ^= 1
        file.write_bytes(content)
    assert second.ask(SYSTEM)[1] == 0
    assert second.ask(SYSTEM)[1] == len(SYSTEM) - 8


def test_another_packs_snapshots_are_not_used(open_asker: Open, tmp_path: Path, pack_path: Path) -> None:
    write_random_checkpoint(
        tmp_path / "checkpoint", dataclasses.replace(SMALL, eos_token_ids=(9999,)), seed=1, tokenizer=False
    )
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack"), "--bits", "4"]) == 0
    on_disk = {"prefix_dir": tmp_path / "d", "prefix_disk_bytes": 10**9}
    other = Engine.load(tmp_path / "pack", dataclasses.replace(OPTIONS, **on_disk))  # type: ignore[arg-type]
    list(other.generate(SYSTEM, SamplingParams(max_tokens=3)))
    other.close()
    first = open_asker(**on_disk)
    assert first.ask(SYSTEM)[1] == 0
    first.engine.close()
    second = open_asker(**on_disk)
    assert second.ask(SYSTEM)[1] == len(SYSTEM) - 8
    assert [asker.engine.stats().prefixes.disk_hits for asker in (first, second)] == [0, 1]


def test_a_directory_that_cannot_be_used_stops_the_start(open_asker: Open, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o777)
    with pytest.raises(PrefixDirectoryError, match="open to other users"):
        open_asker(prefix_dir=tmp_path / "d", prefix_disk_bytes=10**9)


def test_a_tenant_can_be_forgotten(open_asker: Open, tmp_path: Path) -> None:
    asker = open_asker(prefix_dir=tmp_path / "d", prefix_disk_bytes=10**9)
    asker.ask(SYSTEM, "a")
    asker.ask(SYSTEM, "b")
    asker.engine.forget("a")
    assert len(list((tmp_path / "d").glob("*.prefix"))) == 2
    assert asker.ask(SYSTEM, "a")[1] == 0
    assert asker.ask(SYSTEM, "b")[1] == len(SYSTEM) - 8
