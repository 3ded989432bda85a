"""Training and examination share no value, and a seed decides everything."""

import pytest

from ops.demo.tasks import TASKS, make_dialogue
from ops.demo.tasks.draw import Draw, Side, side_of

COUNT = 300
GOLDEN = [6, 24, 27, 34]  # of the first forty numbers


def keys(task: str, side: Side) -> set[str]:
    return {turn.key for index in range(COUNT) for turn in make_dialogue(task, str(index), side).turns}


@pytest.mark.parametrize("task", TASKS)
def test_every_value_is_on_the_side_that_it_is_drawn_for(task: str) -> None:
    for side in Side:
        assert {side_of(key) for key in keys(task, side)} == {side}


@pytest.mark.parametrize("task", TASKS)
def test_no_value_is_on_both_sides(task: str) -> None:
    assert not keys(task, Side.TRAIN) & keys(task, Side.HELD_OUT)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_makes_the_same_chat(task: str) -> None:
    assert make_dialogue(task, "7", Side.TRAIN) == make_dialogue(task, "7", Side.TRAIN)
    assert len({make_dialogue(task, str(seed), Side.TRAIN) for seed in range(COUNT)}) > COUNT * 0.8


def test_what_is_known_by_heart_is_never_examined() -> None:
    assert side_of("known anything at all") is Side.TRAIN


def test_about_one_value_in_ten_is_held_out() -> None:
    held_out = sum(side_of(f"value {i}") is Side.HELD_OUT for i in range(10_000))
    assert 900 < held_out < 1100


def test_a_search_without_a_value_of_its_side_ends() -> None:
    assert Draw("0", Side.HELD_OUT).maybe_on_side(lambda: ("known", 1)) is None


def test_the_split_is_the_same_on_every_machine() -> None:
    assert [i for i in range(40) if side_of(f"value {i}") is Side.HELD_OUT] == GOLDEN
