"""The token sequences over which models are compared position by position."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.errors import EvaluationError
from edge.evaluation.questions import Question
from edge.prompt import PromptEncoder
from edge.tokenizer import Tokenizer

# As papers on quantisation measure perplexity (GPTQ, arXiv 2210.17323, section 4): a text in disjoint windows of 2048.
WINDOW_TOKENS = 2048
CHARACTERS_PER_TOKEN = 16  # far more than any text needs: so much of a file is read


@dataclass(frozen=True, slots=True)
class Passage:
    """Token ids of which those from place `first` on, 1 or more, are scored, each given all ids before it."""

    ids: tuple[int, ...]
    first: int

    @property
    def num_scored(self) -> int:
        """How many tokens are scored."""
        return len(self.ids) - self.first


def question_prompts(questions: Sequence[Question], tokenizer: Tokenizer, vocab_size: int) -> list[list[int]]:
    """The ids of each chat, ready for its answer. Raises RequestError where the template or the tokenizer refuses."""
    encoder = PromptEncoder(tokenizer, vocab_size, context_tokens=2**31)
    return [encoder.chat(question.messages) for question in questions]


def reference_answers(
    questions: Sequence[Question], prompts: Sequence[Sequence[int]], tokenizer: Tokenizer
) -> list[Passage]:
    """Each prompt followed by the question's right answer, which alone is scored.

    What ends an answer is not scored: whether a model stops shows in its own answers.
    """
    passages = []
    for question, prompt in zip(questions, prompts, strict=True):
        answer = tokenizer.encode_more(question.reference)
        if answer:
            passages.append(Passage((*prompt, *answer), len(prompt)))
    return passages


def read_text(path: Path, max_tokens: int) -> str:
    """As much of a file as `max_tokens` tokens may need. Raises EvaluationError."""
    if max_tokens < 2:
        raise EvaluationError(f"text_tokens is {max_tokens}: it must be at least 2, of which one is scored")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(CHARACTERS_PER_TOKEN * max_tokens)
    except OSError as error:
        raise EvaluationError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{path}: not a text in UTF-8") from error
    if not text:
        raise EvaluationError(f"{path}: is empty")
    return text


def text_windows(text: str, max_tokens: int, tokenizer: Tokenizer) -> list[Passage]:
    """The first `max_tokens` tokens of a text in windows that know nothing of each other; all but their first count.

    Raises EvaluationError for a text of a single token.
    """
    ids = tokenizer.encode_more(text)[:max_tokens]
    windows = [tuple(ids[start : start + WINDOW_TOKENS]) for start in range(0, len(ids), WINDOW_TOKENS)]
    passages = [Passage(window, 1) for window in windows if len(window) > 1]
    if not passages:
        raise EvaluationError("the text has fewer than two tokens: none can be scored")
    return passages
