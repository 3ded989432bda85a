"""What models are measured with, as it was given: questions, a text, or both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import EvaluationError
from edge.evaluation.passages import read_text
from edge.evaluation.questions import Question, read_questions, select


@dataclass(frozen=True, slots=True)
class Texts:
    """Questions to answer, and a text to score instead of the questions' reference answers."""

    questions: tuple[Question, ...]
    max_tokens: int  # of an answer
    text: str | None = None
    text_tokens: int = 0  # of the text at most

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise EvaluationError(f"max_tokens is {self.max_tokens}: it must be at least 1")
        if not self.questions and self.text is None:
            raise EvaluationError("nothing to measure with: give --questions, --text or both")


def read_texts(
    questions: Path | None,
    text: Path | None,
    *,
    tasks: Sequence[str] | None,
    limit: int | None,
    max_tokens: int,
    text_tokens: int,
) -> Texts:
    """The files, each if it was named, and of the questions those asked for. Raises EvaluationError."""
    chosen = select(read_questions(questions), tasks, limit) if questions else ()
    return Texts(chosen, max_tokens, read_text(text, text_tokens) if text else None, text_tokens)
