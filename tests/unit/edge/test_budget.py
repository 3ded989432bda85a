"""Sizes as people write them, and how a memory budget is shared out."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.budget import (
    MARGIN_BYTES,
    PAGE_BYTES,
    MemoryPlan,
    format_bytes,
    parse_bytes,
    plan_memory,
    pool_tokens,
    scratch_bytes,
    state_bytes,
)
from edge.dense_sizes import DenseSizes
from edge.errors import BudgetError
from edge.state import SequenceState, delta_bytes, kv_token_bytes
from tests.unit.edge.largest import CONFIG, EXPERT

DENSE_BYTES = 5_500_000_000


def plan(
    memory_bytes: int, *, context_tokens: int = 4096, chunk_tokens: int | None = 512, max_sequences: int | None = None
) -> MemoryPlan:
    return plan_memory(
        CONFIG,
        EXPERT,
        dense=DenseSizes(DENSE_BYTES),
        baseline_bytes=60_000_000,
        memory_bytes=memory_bytes,
        context_tokens=context_tokens,
        chunk_tokens=chunk_tokens,
        max_sequences=max_sequences,
    )


@pytest.mark.parametrize("text", ["", "GB", "3XB", "-1GB", "1e9", "3 G B", "nan", "9" * 400 + "GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BudgetError, match="is not a size in bytes; write it like 3GB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("3GB", 3 * 10**9), ("512MiB", 512 * 2**20), ("1.5 gb", 15 * 10**8), ("123", 123), ("2k", 2000), ("1TiB", 2**40)],
)
def test_sizes_are_read_as_written(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@given(st.integers(1, 10**15))
def test_a_formatted_size_is_never_below_the_number(count: int) -> None:
    shown = parse_bytes(format_bytes(count))
    assert count <= shown <= count * 1.1 + 1000


def test_weights_that_may_stay_on_disk_fit_every_budget_or_it_is_refused() -> None:
    layers, vectors = (60_000_000,) * 60, (100_000,) * 60
    sizes = DenseSizes(DENSE_BYTES, layers=layers, vectors=vectors, embedding=572_000_000)
    planned = 0
    for memory in range(0, 8_000_000_000, 50_000_000):
        try:
            parts = plan_memory(
                CONFIG, EXPERT, dense=sizes, baseline_bytes=60_000_000, memory_bytes=memory, context_tokens=4096
            )
        except BudgetError:
            assert not planned
            continue
        planned += 1
        assert parts.total_bytes <= memory
        assert parts.num_slots >= CONFIG.top_k
    assert planned > 100


def test_a_budget_that_is_too_small_names_what_would_do() -> None:
    with pytest.raises(
        BudgetError, match=r"needs at least (.*) for this model with a context of 4096; --memory"
    ) as error:
        plan(1_000_000_000)
    least = str(error.value).split("needs at least ")[1].split(" for")[0]
    assert plan(parse_bytes(least)).num_slots >= CONFIG.top_k
    with pytest.raises(BudgetError):
        plan(int(parse_bytes(least) * 0.98))


@given(memory=st.integers(6_000_000_000, 300_000_000_000), context=st.integers(1, 8192), chunk=st.integers(1, 2048))
def test_the_parts_never_exceed_the_budget(memory: int, context: int, chunk: int) -> None:
    try:
        parts = plan(memory, context_tokens=context, chunk_tokens=chunk)
    except BudgetError:
        return
    assert parts.total_bytes <= memory
    assert parts.num_slots >= CONFIG.top_k
    assert min(chunk, 16) <= parts.chunk_tokens <= chunk
    assert parts.scratch_bytes == scratch_bytes(CONFIG, parts.chunk_tokens, parts.num_sequences)


SECTIONED = DenseSizes(DENSE_BYTES, layers=(60_000_000,) * 60, vectors=(100_000,) * 60, embedding=572_000_000)


@given(
    memory=st.integers(0, 300_000_000_000) | st.integers(0, 8_000_000_000),
    context=st.sampled_from([1, 300, 4096, 262_144, 2**31]),
    chunk=st.none() | st.integers(1, 10_000),
    sequences=st.none() | st.integers(1, 50),
    slots=st.none() | st.integers(1, 40_000),
    prefix=st.sampled_from([None, 0, 1, 10**9]),
    dense=st.sampled_from([DenseSizes(DENSE_BYTES), SECTIONED]),
)
def test_whatever_is_wished_for_fits_or_is_refused_with_what_would_do(
    memory: int,
    context: int,
    chunk: int | None,
    sequences: int | None,
    slots: int | None,
    prefix: int | None,
    dense: DenseSizes,
) -> None:
    def planned(memory_bytes: int) -> MemoryPlan:
        return plan_memory(
            CONFIG,
            EXPERT,
            dense=dense,
            baseline_bytes=60_000_000,
            memory_bytes=memory_bytes,
            context_tokens=context,
            chunk_tokens=chunk,
            max_sequences=sequences,
            most_slots=slots,
            prefix_bytes=prefix,
        )

    try:
        parts = planned(memory)
    except BudgetError as error:
        memory = parse_bytes(str(error).split("needs at least ")[1].split(" for")[0])
        parts = planned(memory)
    assert 0 < parts.total_bytes <= memory
    assert min(CONFIG.top_k, slots or CONFIG.top_k) <= parts.num_slots <= CONFIG.num_layers * CONFIG.num_experts
    assert parts.num_sequences == sequences if sequences else parts.num_sequences >= 1
    assert context <= parts.kv_tokens
    assert parts.state_bytes >= parts.kv_tokens * kv_token_bytes(CONFIG) + parts.num_sequences * delta_bytes(CONFIG)
    assert parts.chunk_tokens >= 1
    assert prefix is None or parts.prefix_bytes == prefix


def test_a_tight_budget_shortens_the_chunks_before_it_is_refused() -> None:
    ample = plan(12_000_000_000, chunk_tokens=16, max_sequences=1)
    needed = ample.total_bytes - ample.expert_bytes
    assert plan(needed + CONFIG.top_k * EXPERT.block_bytes, chunk_tokens=512).chunk_tokens == 16


def test_places_and_chunks_take_an_eighth_of_the_room_at_most_where_experts_would_give_way() -> None:
    parts = plan(12_000_000_000, chunk_tokens=None)
    room = 12_000_000_000 - parts.baseline_bytes - parts.dense_bytes - MARGIN_BYTES
    assert (parts.num_sequences, parts.chunk_tokens) == (2, 4096)
    assert parts.state_bytes <= room / 8 < state_bytes(CONFIG, 3, 4096)
    assert parts.scratch_bytes <= scratch_bytes(CONFIG, 512, 2) + room / 8
    assert plan(7_000_000_000, chunk_tokens=None).chunk_tokens == 1024


def test_where_every_expert_fits_there_are_places_in_plenty_and_chunks_need_not_be_long() -> None:
    parts = plan(250_000_000_000, chunk_tokens=None)
    assert (parts.num_sequences, parts.chunk_tokens) == (8, 512)
    assert parts.num_slots == CONFIG.num_layers * CONFIG.num_experts


def test_a_chunk_is_not_longer_than_a_context_needs() -> None:
    assert plan(12_000_000_000, context_tokens=600, chunk_tokens=None).chunk_tokens == 1024


def test_as_many_sequences_run_as_are_wished_for_or_the_budget_is_refused() -> None:
    parts = plan(12_000_000_000, max_sequences=5)
    assert (parts.num_sequences, parts.kv_tokens) == (5, 4096 + 4 * 2048)
    assert parts.kv_tokens == pool_tokens(5, 4096)
    with pytest.raises(BudgetError, match="with a context of 4096, 40 at a time; --memory says"):
        plan(12_000_000_000, max_sequences=40)


def test_there_are_no_more_slots_than_experts() -> None:
    assert plan(10**13).num_slots == CONFIG.num_layers * CONFIG.num_experts


def test_the_state_has_the_bytes_that_are_planned_for_it() -> None:
    config = dataclasses.replace(CONFIG, num_layers=4, layer_types=CONFIG.layer_types[:4])
    state = SequenceState(config, 100)
    arrays = [getattr(layer, name) for layer in state.layers for name in layer.__slots__]
    found = sum(array.nbytes for array in arrays)
    assert found == delta_bytes(config) + 100 * kv_token_bytes(config)
    assert state_bytes(config, 1, 100) == found + 2 * PAGE_BYTES  # for one layer's keys and values


def test_the_397b_keeps_the_state_its_authors_count() -> None:
    assert kv_token_bytes(CONFIG) == 2 * 30_720  # keys and values in f32, twice the fp16 figure
    assert delta_bytes(CONFIG) == pytest.approx(188.7e6 + 6.6e6, rel=1e-3)
    assert MARGIN_BYTES < 10**8
