"""The model card: figures for every task, and failures as they are."""

from ops.demo.card import TASKS, card
from ops.demo.examination import Result, items
from ops.demo.tasks import TASKS as ALL_TASKS

CONFIG = {"model_type": "qwen3_5_moe_text", "num_hidden_layers": 6, "num_experts": 64, "num_experts_per_tok": 4}
TRAINING = {"tokens": 12_345_678, "steps": 3000, "seconds": 5400, "recipe": {"seed": 0, "peak_rate": 0.003}}
QUESTIONS = items(4)


def text(wrong: int) -> str:
    answers = ["nonsense" if index < wrong else item.turn.answer for index, item in enumerate(QUESTIONS)]
    results = [Result(item, answer) for item, answer in zip(QUESTIONS, answers, strict=True)]
    return card("demo", CONFIG, 8_900_000, TRAINING, results)


def test_every_task_is_described() -> None:
    assert tuple(TASKS) == ALL_TASKS


def test_every_task_has_its_figures() -> None:
    lines = text(wrong=3).splitlines()
    assert f"| arithmetic | {TASKS['arithmetic']} | 1 | 4 | 25.0% |" in lines
    assert f"| dates | {TASKS['dates']} | 4 | 4 | 100.0% |" in lines
    assert "| **all** |  | 33 | 36 | 91.7% |" in lines


def test_failures_are_shown_and_nothing_is_where_there_are_none() -> None:
    assert text(wrong=1).count("said  'nonsense'") == 1
    assert repr(QUESTIONS[0].turn.answer) in text(wrong=1)
    assert "none of these questions" in text(wrong=0)


def test_it_says_how_the_model_was_made() -> None:
    said = text(wrong=0)
    assert "12.3 million tokens in 3000 steps and 1.5 hours" in said
    assert "- `peak_rate`: 0.003" in said
