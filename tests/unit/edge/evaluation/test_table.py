"""The table for people: nothing wider than the terminal, nothing shown that was not measured."""

from typing import Any

import pytest

from edge.evaluation.table import table

TASKS = ("arithmetic", "dates", "units", "lists", "records", "rewriting", "passages", "flashgate", "unknown")


def share(count: int, total: int = 100) -> dict[str, float]:
    return {"count": count, "total": total, "share": count / total, "low": 0.1, "high": 0.9}


def row(label: str, **changes: Any) -> dict[str, Any]:
    return {
        "label": label,
        "nbytes": 18_000_000,
        "accuracy": share(95),
        "json": share(100),
        "perplexity": {"value": 1.23456, "low": 1.2, "high": 1.3},
        "kl": {"mean": 0.01234, "error": 0.00056},
        "same_tokens": share(99),
        "same_answers": share(80),
        "own_experts": 0.987,
        "tasks": {task: share(90) for task in TASKS},
        "identical": None,
    } | changes


def report(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "reference": "16 bits",
        "questions": 900,
        "max_tokens": 160,
        "scored": "reference answers",
        "scored_tokens": 12345,
        "rows": list(rows),
    } | changes


@pytest.mark.parametrize("width", [80, 100, 250])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    text = table(report(row("16 bits"), row("3.4 bits calibrated, substitute 0.5, 128 slots")), width)
    assert max(map(len, text.splitlines())) <= width
    for word in ("size", "right", "JSON", "perplexity", "KL", "tokens", "answers", "experts", *TASKS):
        assert word in text


def test_the_usual_rows_fit_into_100_columns_without_a_break() -> None:
    lines = table(
        report(row("16 bits", own_experts=None), row("3.4 bits calibrated", own_experts=None)), 100
    ).splitlines()
    assert [index for index, line in enumerate(lines) if not line] == [4, 8]
    assert lines[5].split()[:3] == ["right,", "by", "task"]


def test_a_narrow_terminal_still_gets_every_column() -> None:
    assert table(report(row("16 bits")), 10).count("16 bits  ") == 8 + len(TASKS)


def test_figures_stand_in_their_columns() -> None:
    lines = table(report(row("16 bits", kl=None), row("2 bits", kl={"mean": 2e-5, "error": None})), 250).splitlines()
    assert lines[1].split() == [
        "size",
        "95%",
        "interval",
        "valid",
        "answers",
        "experts",
        "perplexity",
        "reference",
        "tokens",
    ]
    assert lines[2].split()[-3:] == ["1.2346", "–", "99.0%"]
    assert lines[3].split()[-2:] == ["2e-05", "99.0%"]


def test_what_was_not_measured_has_no_column() -> None:
    only_text = dict.fromkeys(("accuracy", "json", "same_answers", "own_experts")) | {"tasks": {}}
    text = table(report(row("4 bits", **only_text), questions=0, scored="text"), 100)
    assert "right" not in text
    assert "JSON" not in text
    assert "questions" not in text
    assert "12345 tokens of the text" in text


def test_identity_is_stated_for_each_row_that_must_have_it() -> None:
    same, other = row("4 bits, 9 slots", identical=True), row("4 bits, 5 slots", identical=False)
    text = table(report(row("4 bits"), same, other), 250)
    assert text.count("4 bits, 9 slots") == 2  # with the others, but not again for each task
    assert "4 bits, 9 slots: answers and logits are byte for byte" in text
    assert "4 bits, 5 slots: answers and logits ARE NOT byte for byte" in text


@pytest.mark.parametrize(("value", "said"), [(None, "–"), (1e9, "1e+09"), (0.0, "0.0000"), (123.45678, "123.4568")])
def test_numbers_of_any_size_have_a_few_digits(value: float | None, said: str) -> None:
    text = table(report(row("4 bits", perplexity={"value": value, "low": None, "high": None}), row("4 bits")), 250)
    assert said in text.splitlines()[2].split()
