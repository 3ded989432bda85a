"""The question file that ships is what the generator writes, and what the examination asks."""

from pathlib import Path

from edge.evaluation.questions import read_questions
from ops.demo.cli import main
from ops.demo.examination import items
from ops.demo.questions import FILE, PER_TASK, question_file, questions
from ops.demo.tasks import TASKS

MOST_BYTES = 300_000


def test_the_file_that_ships_is_up_to_date() -> None:
    remedy = "the tasks changed: python -m ops.demo questions"
    assert FILE.read_text(encoding="utf-8") == question_file(), remedy
    assert FILE.stat().st_size < MOST_BYTES


def test_it_is_a_question_file_of_every_task() -> None:
    read = read_questions(FILE)
    assert [question.task for question in read] == [task for task in TASKS for _ in range(PER_TASK)]


def test_it_asks_what_the_examination_asks() -> None:
    for question, item in zip(questions(3), items(3), strict=True):
        assert [(one.role, one.content) for one in question.messages] == [
            (one["role"], one["content"]) for one in item.messages
        ]
        assert (question.task, question.check) == (item.task, item.turn.check)


def test_the_command_writes_as_many_as_are_wished_for(tmp_path: Path) -> None:
    assert main(["questions", "--out", str(tmp_path / "q.jsonl"), "--per-task", "2"]) == 0
    assert len(read_questions(tmp_path / "q.jsonl")) == 2 * len(TASKS)
