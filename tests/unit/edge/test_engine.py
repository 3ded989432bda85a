"""The engine over a small packed model: what it refuses, how requests end, and that it serves on after each failure."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.checkpoint.layout import Format
from edge.checkpoint.matrix import Matrix
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.errors import BudgetError, CancelledError, PackError, RequestError, StorageError
from edge.events import Failed, Finished, Started, Token
from edge.layers.embedding import embed
from edge.sampler import SamplingParams

CONTEXT = 48
OPTIONS = EngineOptions(memory_bytes=2_000_000_000, context_tokens=CONTEXT, chunk_tokens=16)
PROMPT = list(range(3, 30))


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint")
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture
def engine(pack_path: Path) -> Iterator[Engine]:
    engine = Engine.load(pack_path, OPTIONS)
    yield engine
    engine.close()


@pytest.fixture
def few_slots(pack_path: Path) -> Iterator[Engine]:
    """An engine that must read experts again and again."""
    engine = Engine.load(pack_path, dataclasses.replace(OPTIONS, expert_slots=5))
    yield engine
    engine.close()


def greedy(engine: Engine, max_tokens: int = 12) -> list[int]:
    return list(engine.generate(PROMPT, SamplingParams(max_tokens=max_tokens)))


def greedy_of(engine: Engine, ids: list[int]) -> list[int]:
    return list(engine.generate(ids, SamplingParams(max_tokens=6)))


def answers(engine: Engine, prompts: dict[int, list[int]]) -> dict[int, list[int] | str]:
    """What each of some requests that come together gets: six tokens, or the name of its error."""
    found: dict[int, list[int] | str] = {}
    for job, ids in prompts.items():
        engine.submit(job, ids, SamplingParams(max_tokens=6))
    while engine.has_work:
        for event in engine.step():
            match event:
                case Token(job, token):
                    tokens = found.setdefault(job, [])
                    assert isinstance(tokens, list)
                    tokens.append(token)
                case Failed(job, error):
                    found[job] = type(error).__name__
    return found


def overflow(checkpoint: Path, tensor: str) -> None:
    """Make the first value of an f32 tensor of a checkpoint so large that its square is not finite."""
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    header_bytes = int.from_bytes(content[:8], "little")
    start = 8 + header_bytes + json.loads(content[8 : 8 + header_bytes])[tensor]["data_offsets"][0]
    content[start : start + 4] = np.float32(3e38).tobytes()
    file.write_bytes(content)


def stop_at(number: int) -> Callable[[], bool]:
    """True from the given question on."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= number


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "the prompt is empty"),
        ([1] * 49, "the prompt has 49 tokens: the context holds 48"),
        ([1, SMALL.vocab_size], f"token id is {SMALL.vocab_size}: it must be 0 to {SMALL.vocab_size - 1}"),
        ([-1, 2], "token id is -1: it must be 0 to"),
    ],
)
def test_a_prompt_that_cannot_be_served_is_refused_at_once(engine: Engine, ids: list[int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        engine.generate(ids, SamplingParams())
    with pytest.raises(RequestError, match=message):
        engine.logits(ids)


@pytest.mark.parametrize(("name", "value"), [("memory_bytes", 0), ("context_tokens", -1), ("threads", 0)])
def test_options_out_of_range_are_refused_by_name(name: str, value: int) -> None:
    wrong: Any = {name: value}
    with pytest.raises(RequestError, match=f"{name} is {value}: it must be at least 1"):
        dataclasses.replace(OPTIONS, **wrong)


def test_more_threads_than_the_kernels_take_are_refused() -> None:
    with pytest.raises(RequestError, match="threads is 5000: it must be at most 1024"):
        dataclasses.replace(OPTIONS, threads=5000)


@pytest.mark.parametrize(("chunk", "prompt_tokens"), [(0, None), (None, -1), (None, len(PROMPT) + 1)])
def test_logits_refuses_impossible_cuts(engine: Engine, chunk: int | None, prompt_tokens: int | None) -> None:
    with pytest.raises(RequestError, match="it must be"):
        engine.logits(PROMPT, chunk, prompt_tokens)


def test_a_budget_below_the_minimum_is_refused_with_the_minimum(pack_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"needs at least \d+\.\d MB .* --memory says 1\.0 MB"):
        Engine.load(pack_path, dataclasses.replace(OPTIONS, memory_bytes=1_000_000))


def test_what_is_no_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError):
        Engine.load(tmp_path, OPTIONS)


def test_weights_that_overflow_are_an_error_and_never_text(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path / "checkpoint", form=Format.F32)
    overflow(tmp_path / "checkpoint", "model.norm.weight")
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack")]) == 0
    engine = Engine.load(tmp_path / "pack", OPTIONS)
    try:
        for temperature in (0.0, 1.0):
            with pytest.raises(PackError, match="the logits are not finite"):
                next(engine.generate(PROMPT, SamplingParams(temperature=temperature)))
    finally:
        engine.close()


def test_max_tokens_ends_a_completion(engine: Engine) -> None:
    assert len(greedy(engine, 5)) == 5
    assert (engine.last.finish_reason, engine.last.completion_tokens, engine.last.prompt_tokens) == ("length", 5, 27)


def test_the_end_of_the_context_ends_a_completion(engine: Engine) -> None:
    tokens = list(engine.generate([id + 1 for id in PROMPT], SamplingParams(max_tokens=1000)))  # meets no end token
    # The token drawn from the last position needs no place of its own.
    assert len(tokens) == CONTEXT - len(PROMPT) + 1
    assert engine.last.finish_reason == "length"


def test_an_end_token_ends_a_completion_and_is_not_part_of_it(engine: Engine, tmp_path: Path) -> None:
    tokens = greedy(engine)
    end = tokens[7]
    write_random_checkpoint(tmp_path / "checkpoint", dataclasses.replace(SMALL, eos_token_ids=(end,)), tokenizer=False)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack"), "--bits", "4"]) == 0
    ending = Engine.load(tmp_path / "pack", OPTIONS)
    assert greedy(ending) == tokens[: tokens.index(end)]
    assert ending.last.finish_reason == "stop"
    ending.close()


def test_a_seed_gives_the_same_tokens_whatever_was_cached(engine: Engine, few_slots: Engine) -> None:
    sampling = SamplingParams(max_tokens=15, temperature=1.5, top_p=0.9, seed=4)
    first = list(engine.generate(PROMPT, sampling))
    assert list(engine.generate(PROMPT, sampling)) == first
    assert list(few_slots.generate(PROMPT, sampling)) == first


@pytest.mark.parametrize("first", [0, 5, 15, 16, 20, len(PROMPT) - 1])
def test_logits_may_begin_at_any_position(engine: Engine, first: int) -> None:
    blocks = [*engine.logits_blocks(PROMPT, 16, first=first)]
    np.testing.assert_array_equal(np.concatenate(blocks), engine.logits(PROMPT)[first:])


def test_logits_begin_within_the_prompt(engine: Engine) -> None:
    with pytest.raises(RequestError, match="first is 27: it must be 0 to 26"):
        engine.logits_blocks(PROMPT, first=len(PROMPT))


def test_tokens_are_the_likeliest_of_the_logits(engine: Engine) -> None:
    tokens = greedy(engine)
    logits = engine.logits(PROMPT + tokens)
    assert np.argmax(logits[len(PROMPT) - 1 : -1], axis=1).tolist() == tokens


@pytest.mark.parametrize("question", [1, 4, 6])
def test_a_prompt_is_cancelled_before_any_layer(engine: Engine, question: int) -> None:
    expected = greedy(engine)
    with pytest.raises(CancelledError):
        list(engine.generate(PROMPT, SamplingParams(), stop_at(question)))
    assert (engine.last.finish_reason, engine.last.completion_tokens) == ("", 0)
    assert greedy(engine) == expected


def test_decoding_is_cancelled_within_one_token(engine: Engine) -> None:
    expected = greedy(engine)
    tokens: list[int] = []
    completion = engine.generate(PROMPT, SamplingParams(), lambda: len(tokens) == 3)
    tokens += [next(completion) for _ in range(3)]
    with pytest.raises(CancelledError):
        next(completion)
    assert tokens == expected[:3]
    assert greedy(engine) == expected


def test_an_abandoned_completion_leaves_the_engine_serving(engine: Engine) -> None:
    expected = greedy(engine)
    abandoned = engine.generate(PROMPT, SamplingParams())
    next(abandoned)
    assert greedy(engine) == expected


def test_an_altered_expert_is_an_error_of_that_request_only(pack_path: Path, few_slots: Engine) -> None:
    expected = greedy(few_slots)
    path = few_slots.pack.expert_paths[1]
    content = path.read_bytes()
    block_bytes = few_slots.pack.experts.block_bytes
    altered = bytearray(content)
    for start in range(0, len(content), block_bytes):
        altered[start + 17] ^= 1
    path.write_bytes(altered)
    try:
        with pytest.raises(StorageError, match=path.name):
            greedy(few_slots)
        assert few_slots.last.completion_tokens == 0
    finally:
        path.write_bytes(content)
    assert greedy(few_slots) == expected


def test_a_truncated_expert_file_is_an_error_of_that_request_only(pack_path: Path, few_slots: Engine) -> None:
    expected = greedy(few_slots)
    path = few_slots.pack.expert_paths[2]
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(len(content) // 3)
    try:
        with pytest.raises(StorageError, match=path.name):
            greedy(few_slots)
    finally:
        path.write_bytes(content)
    assert greedy(few_slots) == expected


def test_an_altered_expert_costs_only_the_requests_that_need_it(pack_path: Path, tmp_path: Path) -> None:
    """Each of some experts is broken in turn; of ten one-token prompts side by side some need it and some do not."""
    pack = shutil.copytree(pack_path, tmp_path / "pack")
    prompts = {job: [job] for job in range(10)}
    engine = Engine.load(pack, dataclasses.replace(OPTIONS, max_sequences=len(prompts)))
    path, block_bytes = engine.pack.expert_paths[1], engine.pack.experts.block_bytes
    expected = answers(engine, prompts)
    engine.close()
    content = path.read_bytes()
    for expert in range(3):
        altered = bytearray(content)
        altered[expert * block_bytes + 17] ^= 1
        path.write_bytes(altered)
        engine = Engine.load(pack, dataclasses.replace(OPTIONS, max_sequences=len(prompts)))
        found = answers(engine, prompts)
        engine.close()
        failed = {job for job, answer in found.items() if answer == "StorageError"}
        assert 0 < len(failed) < len(prompts)
        assert {job: answer for job, answer in found.items() if job not in failed} == {
            job: answer for job, answer in expected.items() if job not in failed
        }


def test_what_is_no_number_for_one_prompt_costs_only_that_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {job: greedy_of(engine, ids) for job, ids in ((1, PROMPT[10:]), (3, PROMPT[:3]))}

    def embed_badly(embeddings: Matrix, ids: Sequence[int]) -> NDArray[np.float32]:
        return np.where(np.array(ids)[:, None] == 7, np.float32(np.nan), embed(embeddings, ids))

    monkeypatch.setattr("edge.model.embed", embed_badly)
    assert answers(engine, {1: PROMPT[10:], 2: [3, 7, 5], 3: PROMPT[:3]}) == expected | {2: "PackError"}


def test_a_job_number_is_refused_while_it_is_taken(engine: Engine) -> None:
    engine.submit(4, PROMPT, SamplingParams())
    with pytest.raises(RequestError, match="job 4 is still there"):
        engine.submit(4, PROMPT, SamplingParams())
    engine.cancel(4)
    assert [type(event) for event in engine.step()] == [Failed]
    assert not engine.has_work
    engine.submit(4, PROMPT, SamplingParams())


def test_more_requests_than_places_are_served_in_order(pack_path: Path) -> None:
    engine = Engine.load(pack_path, dataclasses.replace(OPTIONS, max_sequences=2))
    for job in range(6):
        engine.submit(job, PROMPT, SamplingParams(max_tokens=3))
    events = [event for _ in range(100) if engine.has_work for event in engine.step()]
    assert [event.job for event in events if isinstance(event, Started)] == list(range(6))
    assert [event.job for event in events if isinstance(event, Finished)] == list(range(6))
    engine.close()


def test_a_cancelled_request_leaves_at_the_next_layer_and_frees_its_place(pack_path: Path) -> None:
    engine = Engine.load(pack_path, dataclasses.replace(OPTIONS, max_sequences=1))
    for job in (1, 2):
        engine.submit(job, PROMPT, SamplingParams(max_tokens=4))
    layers = 0

    def cancel_in_second_layer() -> None:
        nonlocal layers
        layers += 1
        if layers == 2:
            engine.cancel(1)
        if layers > 2:
            pytest.fail("nobody is left in this pass")

    assert engine.step() == [Started(1)]
    (failed,) = engine.step(cancel_in_second_layer)
    assert (failed.job, str(getattr(failed, "error", ""))) == (1, "the request was cancelled")
    assert engine.step() == [Started(2)]
    engine.close()


def test_the_counters_of_shared_passes_sum_to_those_of_the_engine(pack_path: Path) -> None:
    engine = Engine.load(pack_path, dataclasses.replace(OPTIONS, expert_slots=5, max_sequences=3))
    for job in range(4):
        engine.submit(job, PROMPT[job * 5 :], SamplingParams(max_tokens=3 + job))
    ended = []
    while engine.has_work:
        ended += [event.stats for event in engine.step() if isinstance(event, Finished)]
    stats = engine.stats()
    engine.close()
    assert len(ended) == 4
    assert sum(one.expert_lookups for one in ended) == stats.expert_lookups > 0
    assert sum(one.expert_hits for one in ended) == stats.expert_hits
    assert sum(one.expert_read_bytes for one in ended) == stats.expert_read_bytes
    assert sum(one.disk_seconds for one in ended) == pytest.approx(stats.disk_seconds, rel=0.01)


def test_counters_of_a_request_and_of_the_engine_agree(few_slots: Engine) -> None:
    greedy(few_slots)
    last, stats = few_slots.last, few_slots.stats()
    assert last.expert_lookups == stats.expert_lookups > 0
    assert last.expert_hits == stats.expert_hits
    misses = stats.expert_lookups - stats.expert_hits
    assert last.expert_read_bytes == stats.expert_read_bytes == misses * few_slots.pack.experts.block_bytes
    assert 0 < last.prefill_seconds <= last.ttft_seconds
    assert last.decode_seconds > 0
    assert last.disk_seconds > 0
    assert stats.hit_rate == stats.expert_hits / stats.expert_lookups
    assert stats.experts_resident == stats.expert_slots == 5
    assert 0 < stats.memory_bytes <= stats.peak_memory_bytes


def test_reading_ahead_changes_no_token(pack_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.experts.gate.IDLE_SHARE", (0.0, 0.0))
    monkeypatch.setattr("edge.experts.gate.LEAST_PRECISION", 0.0)
    answers, stats = [], []
    for prefetch in (False, True):
        engine = Engine.load(pack_path, dataclasses.replace(OPTIONS, expert_slots=24, prefetch=prefetch))
        try:
            answers.append([greedy(engine, 15) for _ in range(2)])
            stats.append(engine.stats())
        finally:
            engine.close()
    assert answers[0] == answers[1]
    assert [bool(stat.prefetch_recall) for stat in stats] == [False, True]
    assert stats[0].prefetch_bytes == 0
