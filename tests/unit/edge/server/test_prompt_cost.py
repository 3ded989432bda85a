import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.server.prompt_cost import HALF_LIFE_TOKENS, PromptCost


def learned(*prompts: tuple[int, float]) -> PromptCost:
    cost = PromptCost()
    for tokens, seconds in prompts:
        cost.add(tokens, seconds)
    return cost


def predicted(cost: PromptCost, tokens: int) -> float:
    return cost.base_seconds + tokens / cost.tokens_per_second


@pytest.mark.parametrize("prompts", [(), ((0, 1.0),), ((5, 0.0),), ((-1, 1.0), (3, -1.0))])
def test_nothing_is_known_before_a_prompt_was_measured(prompts: tuple[tuple[int, float], ...]) -> None:
    cost = learned(*prompts)
    assert (cost.tokens_per_second, cost.base_seconds) == (0.0, 0.0)


def test_a_look_from_another_thread_never_meets_half_an_update() -> None:
    cost = PromptCost()

    def look(frame: FrameType, event: str, argument: object) -> Any:
        assert cost.tokens_per_second >= 0
        return look

    measuring = sys.gettrace()  # of branch coverage, which would end here for all later tests
    sys.settrace(look)  # between any two lines of `add`
    try:
        cost.add(100, 2.0)
        cost.add(10, 1.0)
    finally:
        sys.settrace(measuring)
    assert cost.tokens_per_second > 0


def test_prompts_of_one_length_give_their_rate() -> None:
    cost = learned((100, 2.0), (100, 4.0))
    assert cost.tokens_per_second == pytest.approx(100 / 3, rel=0.01)
    assert cost.base_seconds == 0.0


def test_short_and_long_prompts_are_both_predicted() -> None:
    cost = learned((10, 0.5), (1000, 5.0), (10, 0.5), (1000, 5.0))
    assert predicted(cost, 10) == pytest.approx(0.5)
    assert predicted(cost, 1000) == pytest.approx(5.0)
    assert predicted(cost, 4000) == pytest.approx(18.6, rel=0.01)


def test_a_crowd_of_short_prompts_does_not_wipe_out_a_long_one() -> None:
    cost = learned((1000, 5.0), *[(10, 0.5)] * 500)
    assert predicted(cost, 1000) == pytest.approx(5.0, rel=0.01)
    assert predicted(cost, 10) == pytest.approx(0.5, rel=0.01)


def test_lengths_close_together_are_not_drawn_out_to_a_line() -> None:
    cost = learned((9, 0.6), (10, 0.5), (11, 0.4))
    assert cost.base_seconds == 0.0
    assert cost.tokens_per_second == pytest.approx(20.0, rel=0.01)


def test_a_line_that_falls_or_starts_below_zero_gives_way_to_the_mean_rate() -> None:
    for prompts in (((10, 5.0), (1000, 1.0)), ((10, 0.01), (1000, 50.0))):
        cost = learned(*prompts)
        assert cost.base_seconds == 0.0
        assert cost.tokens_per_second == pytest.approx(1010 / sum(seconds for _, seconds in prompts), rel=0.05)


def test_what_changed_is_learned_anew() -> None:
    cost = learned(*[(1000, 10.0)] * 20, *[(1000, 2.0)] * int(10 * HALF_LIFE_TOKENS / 1000))
    assert predicted(cost, 1000) == pytest.approx(2.0, rel=0.02)


@given(st.lists(st.tuples(st.integers(-5, 10**6), st.floats(-1, 1e6)), max_size=30))
def test_whatever_is_measured_predicts_a_time(prompts: list[tuple[int, float]]) -> None:
    cost = learned(*prompts)
    assert cost.base_seconds >= 0
    assert cost.tokens_per_second >= 0
