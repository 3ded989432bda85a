"""Every answer that is taught passes its own check, is right by an independent reckoning, and a wrong one fails."""

import datetime
import itertools
import json
import re
from fractions import Fraction

import pytest

from ops.demo.tasks import SHARES, TASKS, flashgate, make_dialogue
from ops.demo.tasks.dialogue import Turn
from ops.demo.tasks.draw import Side
from ops.demo.tasks.words import MONTHS
from router.privacy.tags import BUILT_IN

COUNT = 400


def turns(task: str, side: Side = Side.TRAIN) -> list[Turn]:
    return [turn for index in range(COUNT) for turn in make_dialogue(task, str(index), side).turns]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("side", Side)
def test_each_taught_answer_passes_its_check(task: str, side: Side) -> None:
    assert all(turn.check(turn.answer) for turn in turns(task, side))


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_to_nothing_fails(task: str) -> None:
    assert not any(turn.check(wrong) for turn in turns(task) for wrong in ("", "{}", "Perhaps."))


@pytest.mark.parametrize("task", TASKS)
def test_another_questions_answer_mostly_fails(task: str) -> None:
    some = turns(task)
    passed = sum(turn.check(other.answer) for turn, other in itertools.pairwise(some))
    assert passed < len(some) * (0.9 if task == "unknown" else 0.2)


@pytest.mark.parametrize("task", TASKS)
def test_questions_are_plain_text_without_holes(task: str) -> None:
    for turn in turns(task):
        assert turn.question == turn.question.strip() != ""
        assert "<|" not in turn.question
        assert "None" not in turn.question
        if task != "records":
            assert not re.search(r"[{}]", turn.question)


def test_some_chats_have_several_turns() -> None:
    for task in TASKS:
        assert any(len(make_dialogue(task, str(seed), Side.TRAIN).turns) > 1 for seed in range(COUNT))


def test_shares_add_up() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(SHARES) == set(TASKS)


def test_each_step_of_a_calculation_is_right() -> None:
    steps = 0
    for task in ("arithmetic", "units", "dates"):
        for turn in turns(task):
            for chain in re.findall(rf"(?<![\w.])(?<![-+×÷] ){TERMS}(?: = {TERMS})+(?!\w|\.\d| [-+×÷])", turn.answer):
                assert len({value(side) for side in chain.split(" = ")}) == 1, turn.answer
                steps += 1
    assert steps > COUNT


NUMBER = r"\d+(?:\.\d+)?"
TERMS = f"{NUMBER}(?: [-+×÷] {NUMBER})*"


def value(text: str) -> Fraction:
    """Of a sum of products, reckoned here."""
    total = Fraction(0)
    for sign, product in re.findall(r"(?:^|([-+]) )([^-+]+)", text):
        first, *rest = re.findall(rf"([×÷])? ?({NUMBER})", product)
        result = Fraction(first[1])
        for operation, number in rest:
            result = result * Fraction(number) if operation == "×" else result / Fraction(number)
        total += -result if sign == "-" else result
    return total


def test_dates_agree_with_the_calendar() -> None:
    """The calendar of 2026, which is no leap year."""
    found = 0
    for turn in turns("dates"):
        match = re.search(r"(\d+) days after (\d+) (\w+)|^Add (\d+) days to (\d+) (\w+)", turn.question)
        if match and (groups := [group for group in match.groups() if group])[2] in MONTHS:
            n, day, month = groups
            later = datetime.date(2026, MONTHS.index(month) + 1, int(day)) + datetime.timedelta(days=int(n))
            assert turn.answer.endswith(f"{later.day} {MONTHS[later.month - 1]}")
            found += 1
    assert found > 5


def test_json_answers_hold_what_stands_in_the_record() -> None:
    for index in range(COUNT):
        first = make_dialogue("records", str(index), Side.TRAIN).turns[0]
        if first.answer.startswith("{"):
            for value in json.loads(first.answer).values():
                assert value is None or str(value) in first.question


def test_tags_are_those_of_the_router() -> None:
    assert {tag: reach.label for tag, reach in BUILT_IN.items()} == flashgate.REACHES
    assert not set(flashgate.UNKNOWN_TAGS) & set(BUILT_IN)
