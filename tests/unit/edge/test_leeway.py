"""Which expert stands in for which, what that leaves of the router's weight, and what is read for whom."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edge import kernels
from edge.deviation import Deviation, RoutingCounts
from edge.layers.leeway import Leeway, substitutes, surest, weight_kept

# Expert i of 8 has the probability (8 - i) / 36.
FALLING = np.log(np.arange(8, 0, -1, dtype=np.float32))
TOP_4 = np.arange(4, dtype=np.int32)


def replaced(small: list[int], *here: int) -> dict[int, int]:
    return substitutes(FALLING, TOP_4, small, here.__contains__)


def test_the_likeliest_expert_in_ram_stands_in_for_the_least_likely_missing_one() -> None:
    assert replaced([0, 1, 2, 3], 0, 1, 5, 6, 7) == {3: 5, 2: 6}
    assert replaced([0, 1, 2, 3], 0, 1, 2, 6) == {3: 6}
    assert replaced([2, 3], 5, 6, 7) == {3: 5, 2: 6}
    assert replaced([], 5, 6, 7) == {}


def test_what_has_no_stand_in_is_read() -> None:
    assert replaced([0, 1, 2, 3], 0, 1) == {}
    assert replaced([0, 1, 2, 3], 7) == {3: 7}


def test_what_is_in_ram_is_not_replaced() -> None:
    assert replaced([0, 1, 2, 3], 0, 1, 2, 3, 4) == {}


def test_the_surest_quarter_is_never_replaced() -> None:
    assert replaced([0, 1, 2, 3], 4, 5, 6, 7) == {3: 4, 2: 5, 1: 6}
    ten = np.arange(10, dtype=np.int32)
    logits = np.arange(10, 0, -1, dtype=np.float32)
    assert surest(logits, ten) == [0, 1, 2]
    assert surest(logits, ten[:1]) == [0]
    assert substitutes(logits, ten[:1], [0], {5}.__contains__) == {}


@pytest.mark.parametrize(("share", "expected"), [(0.19, [0, 1, 2, 3]), (0.2, [0, 1, 2, 6]), (0.24, [0, 1, 6, 7])])
def test_only_what_has_a_smaller_share_than_asked_is_replaced(share: float, expected: list[int]) -> None:
    """Of the four, expert 3 has 5/26 of the token, 0.192, and expert 2 has 6/26, 0.231."""
    choice = Leeway(Deviation(4, 4, share)).choose(FALLING[None], {0, 6, 7}.__contains__)
    assert choice.experts.tolist() == [expected]


def test_equally_likely_experts_are_taken_in_rising_order() -> None:
    logits = np.zeros(8, np.float32)
    assert substitutes(logits, TOP_4, [3, 2, 1, 0], {6, 5, 7}.__contains__) == {1: 5, 2: 6, 3: 7}


def test_logits_that_are_no_numbers_replace_nothing() -> None:
    logits = np.full((1, 8), np.nan, np.float32)
    choice = Leeway(Deviation(4, 4, 1.0)).choose(logits, {0, 1}.__contains__)
    assert choice.experts.tolist() == kernels.route(logits, 4)[0].tolist()


def stacked(*rows: list[float]) -> NDArray[np.float32]:
    return np.log(np.array(rows, np.float32))


def test_weights_are_the_routers_own_over_what_is_used() -> None:
    leeway = Leeway(Deviation(2, 2, 0.5))
    choice = leeway.choose(stacked([4, 3, 2, 1]), {0, 3}.__contains__)
    assert choice.experts.tolist() == [[0, 3]]
    assert choice.shares == pytest.approx(np.array([[0.8, 0.2]]))
    assert choice.spared == (1,)
    assert leeway.last.tolist() == [[1, 1, pytest.approx(5 / 7)]]
    assert leeway.total.substituted == leeway.total.routings == 1
    assert leeway.total.weight_kept == pytest.approx(5 / 7)


def test_what_is_read_for_one_token_is_there_for_the_others() -> None:
    """Expert 1 is nowhere; the second token must have it, so that the first may as well."""
    leeway = Leeway(Deviation(2, 2, 0.5))
    choice = leeway.choose(stacked([4, 3, 2, 1], [3, 4, 2, 1]), {0, 3}.__contains__)
    assert choice.experts.tolist() == [[0, 1], [0, 1]]
    assert choice.spared == ()
    assert leeway.total == RoutingCounts(2, 0, 2.0)


def test_what_another_token_takes_after_all_is_not_spared() -> None:
    """The first token goes without expert 1; the second, of which it would be a larger share, reads it."""
    leeway = Leeway(Deviation(2, 2, 0.4))
    choice = leeway.choose(stacked([10, 4, 3, 1], [10, 8, 3, 1]), {0, 2}.__contains__)
    assert choice.experts.tolist() == [[0, 2], [0, 1]]
    assert choice.spared == ()


def test_a_prompt_substitutes_nothing() -> None:
    leeway = Leeway(Deviation(2, 2, 0.1))
    assert leeway.choose(stacked([4, 3, 2, 1]), None).experts.tolist() == [[0, 1]]
    assert leeway.total == RoutingCounts(1, 0, 1.0)


def test_fewer_experts_are_those_of_a_model_that_has_so_many() -> None:
    logits = np.random.default_rng(1).standard_normal((5, 16), np.float32)
    leeway = Leeway(Deviation(6, 2))
    choice = leeway.choose(logits, None)
    experts, shares = kernels.route(logits, 2)
    assert (choice.experts.tolist(), choice.shares.tolist()) == (experts.tolist(), shares.tolist())
    odds = np.sort(np.exp(logits))[:, ::-1]
    assert leeway.last[:, 2] == pytest.approx(odds[:, :2].sum(1) / odds[:, :6].sum(1))
    assert leeway.total.substituted == 0


def test_numbers_that_are_none_do_not_spoil_the_count() -> None:
    for bad in (np.nan, np.inf):
        logits = np.array([[bad, 1, 2, 3], [0, 1, 2, 3]], np.float32)
        kept = weight_kept(logits, np.array([[2, 3]] * 2, np.int32), np.array([[1, 3]] * 2, np.int32))
        assert kept[0] == 0
        assert 0 < kept[1] < 1
