"""Figures of hand-made measurements."""

import math

import pytest

from edge.evaluation.checks import LastNumber, SameJson
from edge.evaluation.figures import figures
from edge.evaluation.measured import Answer, Measured
from edge.evaluation.questions import Question
from edge.evaluation.scoring import PassageScore
from edge.prompt import ChatMessage

ASKED = (ChatMessage("user", "?"),)
QUESTIONS = (
    Question("a", "sums", ASKED, "4", LastNumber("4")),
    Question("b", "sums", ASKED, "5", LastNumber("5")),
    Question("c", "records", ASKED, "{}", SameJson("{}")),
    Question("d", "records", ASKED, "[]", SameJson("[]")),
    Question("e", "records", ASKED, "[]", SameJson("[]")),
)


def measured(texts: list[str], scores: list[PassageScore]) -> Measured:
    answers = tuple(Answer(tuple(text.encode()), text) for text in texts)
    return Measured("demo", 4, False, 1000, 7, None, 1.23456, answers, tuple(scores), "00")


REFERENCE = measured(["4", "3 + 2 = 5", "{}", "[]", "[]"], [PassageScore(4, 1.0, 0, 0), PassageScore(2, 0.5, 0, 0)])


def test_accuracy_is_counted_over_all_and_for_each_task() -> None:
    found = figures(QUESTIONS, measured(["4", "6", "{}", "{}", "[1"], []), None)
    assert (found["accuracy"]["count"], found["accuracy"]["total"]) == (2, 5)
    assert {task: share["share"] for task, share in found["tasks"].items()} == {"sums": 0.5, "records": 1 / 3}
    assert found["accuracy"]["low"] < 0.4 < found["accuracy"]["high"]


def test_json_is_valid_right_or_not() -> None:
    found = figures(QUESTIONS, measured(["4", "6", "{}", '{"a": 1}', "[NaN]"], []), None)
    assert (found["json"]["count"], found["json"]["total"]) == (2, 3)


def test_perplexity_and_kl_are_means_over_tokens() -> None:
    scores = [PassageScore(4, 2.0, 0.3, 4), PassageScore(2, 1.0, 0.0, 1)]
    found = figures(QUESTIONS, measured(["4"] * 5, scores), REFERENCE)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(0.5))
    assert found["kl"]["mean"] == pytest.approx(0.05)
    assert found["kl"]["error"] > 0
    assert found["same_tokens"]["share"] == 5 / 6


def test_answers_are_compared_token_by_token() -> None:
    found = figures(QUESTIONS, measured(["4", "3 + 3 = 6", "{}", "[ ]", "[], or so"], []), REFERENCE)
    assert found["same_answers"]["count"] == 2
    assert found["first_different"] == 2  # the median of 4, 1 and 2


def test_a_reference_is_not_compared_with_itself() -> None:
    found = figures(QUESTIONS, REFERENCE, None)
    assert [found[name] for name in ("kl", "same_tokens", "same_answers", "first_different")] == [None] * 4
    assert found["accuracy"]["share"] == 1


def test_where_nothing_was_asked_nothing_is_said() -> None:
    found = figures((), measured([], [PassageScore(4, 2.0, 0.3, 4)]), measured([], []))
    assert [found[name] for name in ("accuracy", "json", "same_answers")] == [None] * 3
    assert found["tasks"] == {}
    assert found["kl"] == {"mean": 0.3 / 4, "error": None}


def test_a_perplexity_beyond_all_numbers_is_none() -> None:
    found = figures((), measured([], [PassageScore(1, 5000.0, 0, 0)]), None)
    assert found["perplexity"] == {"value": None, "low": None, "high": None}
