"""The question file: JSON Lines, one question a line, each with the program that judges its answers.

    {"id": "dates-3", "task": "dates", "messages": [{"role": "user", "content": "Which day follows 2 May?"}],
     "reference": "3 May", "check": {"kind": "ends_with", "text": "3 May"}}

on one line. `reference` is an answer that the check lets through: perplexity and KL are measured over it. The kinds of
check: edge/evaluation/checks.py. Errors name the line and the field and never quote what it holds.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import EvaluationError
from edge.evaluation.checks import Check, dump_check, load_check
from edge.evaluation.strict_json import parse_json
from edge.prompt import ROLES, ChatMessage

MAX_FILE_BYTES = 64 * 1024**2
MAX_QUESTIONS = 100_000
MAX_MESSAGES = 200
MAX_CHARACTERS = 200_000  # of all texts of a question
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Question:
    """A chat up to a question, an answer that is right, and what judges another one."""

    id: str
    task: str
    messages: tuple[ChatMessage, ...]
    reference: str = field(repr=False)
    check: Check = field(repr=False)


def dump_question(question: Question) -> str:
    """Its line, without the line's end."""
    value = {
        "id": question.id,
        "task": question.task,
        "messages": [{"role": message.role, "content": message.content} for message in question.messages],
        "reference": question.reference,
        "check": dump_check(question.check),
    }
    return json.dumps(value, ensure_ascii=False)


def read_questions(path: Path) -> tuple[Question, ...]:
    """All questions of a file, at least one. Raises EvaluationError naming the file and the line."""
    questions = tuple(_questions(path, _read(path)))
    if not questions:
        raise EvaluationError(f"{path}: holds no question")
    twice = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        raise EvaluationError(f"{path}: the id {twice[0]} stands more than once")
    return questions


def select(questions: Sequence[Question], tasks: Sequence[str] | None, limit: int | None) -> tuple[Question, ...]:
    """The first `limit` questions of each of `tasks`; None: all. Raises EvaluationError naming an unknown task."""
    known = dict.fromkeys(question.task for question in questions)
    unknown = [task for task in tasks or () if task not in known]
    if unknown:
        raise EvaluationError(f"no question is of the task {unknown[0]!r}; there are: {', '.join(known)}")
    if limit is not None and limit < 1:
        raise EvaluationError(f"limit is {limit}: it must be at least 1")
    taken: Counter[str] = Counter()
    chosen = []
    for question in questions:
        if (tasks is None or question.task in tasks) and (limit is None or taken[question.task] < limit):
            taken[question.task] += 1
            chosen.append(question)
    return tuple(chosen)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise EvaluationError(f"{path}: holds more than {MAX_FILE_BYTES} bytes of questions")
        return content.decode()
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: not UTF-8 at byte {error.start}") from error


def _questions(path: Path, text: str) -> Iterator[Question]:
    lines = text.split("\n")  # and at no other character that ends lines: JSON may hold those in a text
    if len(lines) > MAX_QUESTIONS + 1:
        raise EvaluationError(f"{path}: has more than {MAX_QUESTIONS} lines")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield _question(parse_json(line))
            except ValueError as error:
                raise EvaluationError(f"{path}:{number}: {_reason(error)}") from error


def _reason(error: ValueError) -> str:
    # The words of json's own errors are of places in the line and never of its text.
    return f"not JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)


def _question(value: Any) -> Question:
    _check_fields("the line", value, ("id", "task", "messages", "reference", "check"))
    for key in ("id", "task"):
        if not isinstance(value[key], str) or not NAME.fullmatch(value[key]):
            raise ValueError(f"{key} must be 1 to 64 letters, digits, '.', '_' or '-'")
    messages, reference = _messages(value["messages"]), _text("reference", value["reference"])
    if sum(map(len, (reference, *(message.content for message in messages)))) > MAX_CHARACTERS:
        raise ValueError(f"its texts have more than {MAX_CHARACTERS} characters")
    try:
        check = load_check(value["check"])
    except ValueError as error:
        raise ValueError(f"check: {error}") from None
    if not check(reference):
        raise ValueError("the check does not let the reference through: one of them is wrong")
    return Question(value["id"], value["task"], messages, reference, check)


def _messages(value: Any) -> tuple[ChatMessage, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
        raise ValueError(f"messages must be a list of 1 to {MAX_MESSAGES}")
    for message in value:
        _check_fields("a message", message, ("role", "content"))
        if message["role"] not in ROLES:
            raise ValueError(f"a message's role must be one of {', '.join(ROLES)}")
    if value[-1]["role"] == "assistant":
        raise ValueError("the last message is the assistant's: nothing is left to answer")
    return tuple(ChatMessage(message["role"], _text("content", message["content"])) for message in value)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} must be a text that is not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key} has characters that are not valid Unicode text") from None
    return value


def _check_fields(what: str, value: Any, names: Sequence[str]) -> None:
    if not isinstance(value, Mapping) or value.keys() != set(names):
        raise ValueError(f"{what} must be an object with the fields {', '.join(names)} and no others")
