"""What every variant is measured with, as the token ids of one tokenizer."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from edge.checkpoint.pack import Pack
from edge.errors import EvaluationError, RequestError
from edge.evaluation.passages import Passage, question_prompts, reference_answers, text_windows
from edge.evaluation.texts import Texts
from edge.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Material:
    """Prompts to answer, one for each question, and passages to score."""

    prompts: tuple[tuple[int, ...], ...]
    passages: tuple[Passage, ...]
    max_tokens: int

    @property
    def context_tokens(self) -> int:
        """That the longest of them needs, with its answer."""
        asked = [len(prompt) + self.max_tokens for prompt in self.prompts]
        return max([*asked, *(len(passage.ids) for passage in self.passages)])

    @property
    def num_scored(self) -> int:
        """Tokens."""
        return sum(passage.num_scored for passage in self.passages)

    @property
    def digest(self) -> str:
        """Of all ids."""
        ids = [self.prompts, [(passage.ids, passage.first) for passage in self.passages]]
        return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def material(texts: Texts, pack: Pack) -> Material:
    """For one pack. Raises EvaluationError for a pack without a tokenizer, or what it cannot take."""
    if pack.tokenizer_dir is None:
        raise EvaluationError(f"{pack.path}: has no tokenizer: it cannot read questions or a text")
    tokenizer = Tokenizer.from_dir(pack.tokenizer_dir)
    try:
        prompts = question_prompts(texts.questions, tokenizer, pack.config.vocab_size)
        passages = _passages(texts, prompts, tokenizer)
    except RequestError as error:
        raise EvaluationError(f"{pack.path}: {error}") from error
    largest = max(max(ids) for ids in (*prompts, *(passage.ids for passage in passages)))
    if largest >= pack.config.vocab_size:
        raise EvaluationError(
            f"{pack.path}: its tokenizer gives the id {largest}, its model knows {pack.config.vocab_size}"
        )
    return Material(tuple(map(tuple, prompts)), tuple(passages), texts.max_tokens)


def _passages(texts: Texts, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer) -> list[Passage]:
    if texts.text is not None:
        return text_windows(texts.text, texts.text_tokens, tokenizer)
    return reference_answers(texts.questions, prompts, tokenizer)
