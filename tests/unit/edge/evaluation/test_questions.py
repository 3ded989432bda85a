"""The question file: what is refused, by line and field, and that what is written is read back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.errors import EvaluationError
from edge.evaluation import questions as module
from edge.evaluation.checks import EndsWith, LastNumber
from edge.evaluation.questions import Question, dump_question, read_questions, select
from edge.prompt import ChatMessage

CANARY = "canary-7431"


def question(name: str = "dates-1", task: str = "dates") -> Question:
    messages = (
        ChatMessage("user", f"{CANARY}: which day?\u2028"),
        ChatMessage("assistant", "2"),
        ChatMessage("user", "?"),
    )
    return Question(name, task, messages, "3 May", EndsWith("3 May"))


def line(**changes: Any) -> str:
    value = json.loads(dump_question(question())) | changes
    return json.dumps({key: item for key, item in value.items() if item is not ...})


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    asked = [question(), Question("sum.2", "sums", (ChatMessage("user", "1 + 1?"),), "2", LastNumber("2"))]
    path = write(tmp_path / "q.jsonl", dump_question(asked[0]), "", dump_question(asked[1]))
    assert list(read_questions(path)) == asked


def test_a_question_shows_nothing_of_its_texts() -> None:
    assert CANARY not in repr(question())
    assert "3 May" not in repr(question())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "the line must be an object with the fields id, task, messages, reference, check"),
        ("{", "not JSON: Expecting property name"),
        ("[" * 100_000, "nested more than 64 deep"),
        ('{"id": ' + "1" * 10_000 + "}", "the line must be an object"),
        (line(id=...), "the line must be an object"),
        (line(extra=1), "the line must be an object"),
        (line(id=""), "id must be 1 to 64 letters"),
        (line(id="../../etc"), "id must be 1 to 64 letters"),
        (line(task=None), "task must be 1 to 64 letters"),
        (line(task="a" * 65), "task must be 1 to 64 letters"),
        (line(messages=[]), "messages must be a list of 1 to 200"),
        (line(messages="hi"), "messages must be a list of 1 to 200"),
        (line(messages=[{"role": "user", "content": "a"}] * 201), "messages must be a list of 1 to 200"),
        (line(messages=["hi"]), "a message must be an object with the fields role, content"),
        (line(messages=[{"role": ["user"], "content": CANARY}]), "a message's role must be one of"),
        (line(messages=[{"role": "robot", "content": CANARY}]), "a message's role must be one of"),
        (line(messages=[{"role": "user", "content": 5}]), "content must be a text that is not empty"),
        (line(messages=[{"role": "user", "content": CANARY + "\ud800"}]), "not valid Unicode"),
        (line(messages=[{"role": "assistant", "content": CANARY}]), "nothing is left to answer"),
        (line(messages=[{"role": "user", "content": "a" * 200_000}]), "more than 200000 characters"),
        (line(reference=""), "reference must be a text that is not empty"),
        (line(reference=CANARY), "the check does not let the reference through"),
        (line(check={"kind": "ends_with", "text": " "}), "check: text is empty"),
        ('{"id": "a", "id": "b"}', "a name stands twice"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "q.jsonl", dump_question(question()), "", text)
    with pytest.raises(EvaluationError, match=rf"q\.jsonl:3: .*{message}") as caught:
        read_questions(path)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b""), "holds no question"),
        (lambda path: path.write_bytes(b"\n \n"), "holds no question"),
        (lambda path: path.write_bytes(b"abc\xff"), "not UTF-8 at byte 3"),
        (lambda path: write(path, line(), line()), "the id dates-1 stands more than once"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "q.jsonl")
    with pytest.raises(EvaluationError, match=rf"q\.jsonl: {message}"):
        read_questions(tmp_path / "q.jsonl")


def test_a_file_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 1000)
    with pytest.raises(EvaluationError, match="/dev/zero: holds more than 1000 bytes"):
        read_questions(Path("/dev/zero"))


def test_too_many_lines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUESTIONS", 2)
    path = write(tmp_path / "q.jsonl", *(line(id=f"q{number}") for number in range(3)))
    with pytest.raises(EvaluationError, match="more than 2 lines"):
        read_questions(path)


def test_the_first_of_each_task_are_taken() -> None:
    asked = [question(f"{task}-{number}", task) for number in range(3) for task in ("dates", "sums", "lists")]
    assert [one.id for one in select(asked, ["sums", "dates"], 2)] == ["dates-0", "sums-0", "dates-1", "sums-1"]
    assert list(select(asked, None, None)) == asked


def test_a_task_that_no_question_has_is_named_with_those_there_are() -> None:
    with pytest.raises(EvaluationError, match="no question is of the task 'sum'; there are: dates"):
        select([question()], ["dates", "sum"], None)
    with pytest.raises(EvaluationError, match="limit is 0: it must be at least 1"):
        select([question()], None, 0)
