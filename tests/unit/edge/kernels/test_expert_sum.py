"""Routed experts add up to their formula, to the same bits in whatever batches and order they come."""

from itertools import accumulate, permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge import kernels, reference
from edge.checkpoint.layout import ExpertLayout, Format
from edge.kernels import ExpertSum, Routing
from tests.unit.edge.kernels.random_arrays import Random, assert_close

pytestmark = pytest.mark.usefixtures("variant")

Floats = NDArray[np.float32]
Batch = list[tuple[int, NDArray[np.uint8]]]


def routing_of(random: Random, experts: list[int], rows: list[Any]) -> Routing:
    """Expert after expert, with random shares."""
    flat = np.concatenate([np.asarray(some, np.int32) for some in rows])
    return Routing(experts, list(accumulate(map(len, rows))), flat, random.floats(len(flat)))


def added(x: Floats, routing: Routing, batches: list[Batch], layout: ExpertLayout, out: Floats) -> Floats:
    total = out.copy()
    experts = ExpertSum(x, routing, layout, total)
    for batch in batches:
        experts.add(batch)
    return total


@pytest.mark.parametrize("form", Format)
def test_the_sum_is_its_formula(form: Format, random: Random) -> None:
    """An expert without tokens, one with more than a pass takes, and all of them of other numbers than their places."""
    layout, first = random.expert(form, 66, 130)
    blocks = [first, *(random.block(layout) for _ in range(3))]
    routing = routing_of(random, [2, 3, 7, 11], [[3], [], [0, 1, 6], range(300)])
    x, out = random.floats(300, 130), random.floats(300, 130)
    expected = out.astype(np.float64)
    reference.expert_sum(x, routing, blocks, layout, expected)
    found = added(x, routing, [list(zip(routing.experts, blocks, strict=True))], layout, out)
    assert_close(found, expected, 3e-5)


@pytest.mark.parametrize("rows", [[[0]] * 4, [[2], [0, 2], [], [0, 1, 2]]], ids=["one token", "three tokens"])
def test_no_order_of_arrival_changes_a_bit(rows: list[list[int]], random: Random) -> None:
    layout, first = random.expert(Format.Q4, 66, 600)
    blocks = dict(enumerate([first, *(random.block(layout) for _ in range(3))]))
    routing = routing_of(random, [0, 1, 2, 3], rows)
    x, out = random.floats(3, 600), random.floats(3, 600)
    expected = added(x, routing, [list(blocks.items())], layout, out)
    for threads in (1, 3):
        kernels.set_num_threads(threads)
        for order in permutations(range(4)):
            for cut in range(5):
                batches = [[(expert, blocks[expert]) for expert in part] for part in (order[:cut], order[cut:])]
                found = added(x, routing, batches, layout, out)
                np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_an_expert_is_added_when_its_turn_has_come(random: Random) -> None:
    layout, block = random.expert(Format.Q4, 66, 130)
    routing, x = routing_of(random, [4, 5], [[0], [0]]), random.floats(1, 130)
    out = np.zeros((1, 130), np.float32)
    total = ExpertSum(x, routing, layout, out)
    total.add([])
    total.add([(5, block)])
    assert not out.any()
    total.add([(4, block)])
    assert out.all()


def test_an_expert_comes_once_and_only_if_it_is_due(random: Random) -> None:
    layout, block = random.expert(Format.Q4, 66, 130)
    out = np.zeros((1, 130), np.float32)
    total = ExpertSum(random.floats(1, 130), routing_of(random, [4, 5], [[0], [0]]), layout, out)
    for batch in ([(3, block)], [(6, block)], [(4, block), (4, block)]):
        with pytest.raises(ValueError, match="is not due"):
            total.add(batch)
    assert not out.any()  # nothing of a batch that was refused
    total.add([(4, block)])
    with pytest.raises(ValueError, match="expert 4 is not due"):
        total.add([(4, block)])


def test_blocks_that_are_short_or_unaligned_are_refused(random: Random) -> None:
    layout, block = random.expert(Format.Q4, 66, 130)
    total = ExpertSum(random.floats(1, 130), routing_of(random, [4], [[0]]), layout, np.zeros((1, 130), np.float32))
    with pytest.raises(ValueError, match=r"block has \d+ bytes, expected \d+"):
        total.add([(4, block[:-64])])
    with pytest.raises(ValueError, match="block is not aligned"):
        total.add([(4, np.concatenate([block, block])[1:])])
    with pytest.raises(TypeError):
        total.add([(4, block.view(np.int8))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts": [5, 4]}, "experts do not rise"),
        ({"experts": [4, 4]}, "experts do not rise"),
        ({"experts": [4]}, "ends has 2 in dimension 0, expected 1"),
        ({"ends": [1, 4]}, "ends do not rise up to the number of rows"),
        ({"ends": [1, 0]}, "ends do not rise up to the number of rows"),
        ({"ends": [1, 2]}, "rows has 3 in dimension 0, expected 2"),
        ({"rows": [0, 0, 2]}, "rows holds 2, x has 2 rows"),
        ({"rows": [-1, 0, 1]}, "rows holds -1"),
        ({"rows": [0, 1, 1]}, "the rows of an expert do not rise"),
        ({"rows": [0, 1, 0]}, "the rows of an expert do not rise"),
        ({"shares": [1, 1]}, "shares has 2 in dimension 0, expected 3"),
    ],
    ids=str,
)
def test_a_routing_that_does_not_fit_is_refused(change: dict[str, Any], message: str, random: Random) -> None:
    layout, _ = random.expert(Format.Q4, 66, 130)
    good: dict[str, Any] = {"experts": [4, 5], "ends": [1, 3], "rows": [0, 0, 1], "shares": [1, 1, 1]}
    x = random.floats(2, 130)

    def build(experts: list[int], ends: list[int], rows: list[int], shares: list[float]) -> None:
        routing = Routing(experts, ends, np.array(rows, np.int32), np.array(shares, np.float32))
        ExpertSum(x, routing, layout, np.zeros((2, 130), np.float32))

    build(**good)
    with pytest.raises(ValueError, match=message):
        build(**(good | change))


def test_arrays_of_another_width_or_that_overlap_are_refused(random: Random) -> None:
    layout, _ = random.expert(Format.Q4, 66, 130)
    routing, memory = routing_of(random, [4], [[0]]), random.floats(3, 130)
    ExpertSum(memory[:1], routing, layout, memory[1:2])
    with pytest.raises(ValueError, match="out overlaps x"):
        ExpertSum(memory[:2], routing, layout, memory[1:])
    with pytest.raises(ValueError, match="x has 131 in dimension 1, expected 130"):
        ExpertSum(random.floats(1, 131), routing, layout, memory[:1])
    with pytest.raises(ValueError, match="out has 2 in dimension 0, expected 1"):
        ExpertSum(random.floats(1, 130), routing, layout, memory[:2])
