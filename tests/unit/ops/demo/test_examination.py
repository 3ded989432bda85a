"""The examination's questions and its table, with answerers that know everything or nothing."""

from collections.abc import Sequence

from ops.demo.examination import Item, examine, items, prompt_text, table
from ops.demo.tasks import TASKS
from ops.demo.tasks.draw import Side, side_of

QUESTIONS = items(5)


def knowing(_: Sequence[list[dict[str, str]]]) -> list[str]:
    return [item.turn.answer for item in QUESTIONS]


def test_it_asks_held_out_questions_of_every_task_alike() -> None:
    assert [item.task for item in QUESTIONS] == [task for task in TASKS for _ in range(5)]
    assert {side_of(item.turn.key) for item in QUESTIONS} == {Side.HELD_OUT}
    assert all(item.messages[-1] == {"role": "user", "content": item.turn.question} for item in QUESTIONS)


def test_who_knows_everything_is_always_right() -> None:
    text = table(examine(knowing, QUESTIONS), failures=2)
    assert text.splitlines()[-1].split() == ["all", "45", "/", "45", "100.0%"]


def test_failures_are_shown_with_what_would_have_been_right() -> None:
    def silent(chats: Sequence[list[dict[str, str]]]) -> list[str]:
        return ["" for _ in chats]

    text = table(examine(silent, QUESTIONS), failures=1)
    assert "45   0.0%" in text
    assert text.count("said  ''") == len(TASKS)
    assert repr(_first(QUESTIONS, "lists").turn.answer) in text


def _first(questions: Sequence[Item], task: str) -> Item:
    return next(item for item in questions if item.task == task)


def test_a_prompt_ends_where_the_answer_begins() -> None:
    text = prompt_text([{"role": "user", "content": "Hi"}])
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
