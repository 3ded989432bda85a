"""Which dense weights stay on disk: as few as can be, evenly spread, and never where they fit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.budget import MemoryPlan, parse_bytes, plan_memory
from edge.dense_sizes import RING_SLOTS, DenseSizes, spread
from edge.disk_rows import BUFFER_BYTES
from edge.errors import BudgetError
from tests.unit.edge.largest import CONFIG, EXPERT

MB = 10**6
# Of the 397B at 4.5 bits: 60 layers, embedding and head.
DENSE = DenseSizes(
    total=60 * 73 * MB + 2 * 572 * MB, layers=(73 * MB,) * 60, vectors=(1 * MB,) * 60, embedding=572 * MB
)
NO_EXPERTS = replace(
    CONFIG, family="qwen3_5_text", num_experts=0, top_k=0, expert_size=0, shared_expert_size=0, mlp_size=12288
)


def plan(memory_bytes: int, *, has_experts: bool = True, dense: DenseSizes = DENSE) -> MemoryPlan:
    return plan_memory(
        CONFIG if has_experts else NO_EXPERTS,
        EXPERT if has_experts else None,
        dense=dense,
        baseline_bytes=60 * MB,
        memory_bytes=memory_bytes,
        context_tokens=4096,
    )


@given(num_layers=st.integers(1, 100), data=st.data())
def test_layers_that_stream_are_spread_evenly(num_layers: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, num_layers))
    chosen = spread(num_layers, count)
    assert len(chosen) == count
    for start in range(num_layers):
        for end in range(start, num_layers + 1):
            inside = sum(start <= layer < end for layer in chosen)
            assert abs(inside - (end - start) * count / num_layers) < 1


def test_nothing_streams_where_the_dense_weights_fit() -> None:
    roomy = plan(12_000 * MB)
    assert not roomy.streamed_layers
    assert roomy.dense_streamed_bytes == roomy.ring_slots == 0
    assert roomy.dense_bytes == DENSE.total - DENSE.embedding + BUFFER_BYTES


def test_an_embedding_stays_in_ram_only_where_everything_does() -> None:
    experts = CONFIG.num_layers * CONFIG.num_experts * EXPERT.block_bytes
    assert not plan(experts + DENSE.total + 20_000 * MB).embedding_on_disk
    tight = plan(12_000 * MB)
    assert tight.embedding_on_disk
    in_ram = plan(12_000 * MB, dense=replace(DENSE, embedding=0))
    saved = (DENSE.embedding - BUFFER_BYTES) * 7 // 8  # an eighth of it may go to states and scratch
    assert tight.expert_bytes - in_ram.expert_bytes >= saved - EXPERT.block_bytes
    assert not plan(20_000 * MB, has_experts=False).embedding_on_disk
    assert plan(5_000 * MB, has_experts=False).embedding_on_disk


@pytest.mark.parametrize("has_experts", [False, True])
def test_as_few_layers_stream_as_can_be(has_experts: bool) -> None:
    tight = plan(3_000 * MB, has_experts=has_experts)
    count = len(tight.streamed_layers)
    assert RING_SLOTS < count < 60
    assert tight.streamed_layers == spread(60, count)
    assert tight.dense_streamed_bytes == count * 73 * MB
    spare = 3_000 * MB - tight.total_bytes
    assert spare < 73 * MB if not has_experts else tight.num_slots < CONFIG.top_k + 73 * MB / EXPERT.block_bytes + 1


@given(memory=st.integers(500 * MB, 12_000 * MB), has_experts=st.booleans())
def test_the_parts_never_exceed_the_budget(memory: int, has_experts: bool) -> None:
    try:
        parts = plan(memory, has_experts=has_experts)
    except BudgetError:
        return
    assert parts.total_bytes <= memory
    assert parts.num_slots >= (CONFIG.top_k if has_experts else 0)
    streamed = sum(DENSE.layers[layer] - DENSE.vectors[layer] for layer in parts.streamed_layers)
    in_ram = DENSE.total - streamed + parts.ring_slots * 73 * MB
    assert parts.dense_bytes == in_ram - (DENSE.embedding - BUFFER_BYTES if parts.embedding_on_disk else 0)


@pytest.mark.parametrize("has_experts", [False, True])
def test_the_minimum_is_that_of_layers_that_stream(has_experts: bool) -> None:
    with pytest.raises(BudgetError, match="needs at least") as error:
        plan(500 * MB, has_experts=has_experts)
    least = parse_bytes(str(error.value).split("needs at least ")[1].split(" for")[0])
    assert least < 2_000 * MB
    assert len(plan(least, has_experts=has_experts).streamed_layers) == 60
    with pytest.raises(BudgetError):
        plan(least - 105 * MB, has_experts=has_experts)  # the figure is rounded up to tenths of a GB


def test_a_head_streams_where_it_would_be_too_big_to_stay() -> None:
    dense = replace(DENSE, head=572 * MB)
    with pytest.raises(BudgetError):
        plan(1_000 * MB, has_experts=False)
    tight = plan(1_000 * MB, has_experts=False, dense=dense)
    assert tight.head_streams
    assert tight.total_bytes <= 1_000 * MB
    assert tight.dense_streamed_bytes == sum(dense.layers[layer] for layer in tight.streamed_layers) + 572 * MB
    assert tight.embedding_on_disk


def test_a_head_that_embeds_too_leaves_its_rows_on_disk() -> None:
    tied = DenseSizes(total=60 * 73 * MB + 572 * MB, layers=(73 * MB,) * 60, vectors=(0,) * 60, head=572 * MB)
    config = replace(NO_EXPERTS, tie_embeddings=True)
    parts = plan_memory(config, None, dense=tied, baseline_bytes=0, memory_bytes=1_000 * MB, context_tokens=512)
    assert parts.head_streams
    assert parts.embedding_on_disk


def test_few_layers_do_not_stream() -> None:
    few = DenseSizes(total=3 * 73 * MB, layers=(73 * MB,) * 3, vectors=(0,) * 3)
    assert few.least == few.total
