"""The three forms a prompt comes in, and how each becomes token ids."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import PromptTooLongError, RequestError
from edge.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn. `content` stays out of `repr`: prompts are never logged."""

    role: str
    content: str

    def __repr__(self) -> str:
        return f"ChatMessage(role={self.role!r}, {len(self.content)} characters)"


class PromptEncoder:
    """Encodes prompts for one model: `tokenizer` is None if it has none, ids are below `vocab_size`."""

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int, context_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._context_tokens = context_tokens

    def chat(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Raises: RequestError on an unknown role, no messages, no tokenizer, or what the template refuses."""
        for message in messages:
            if message.role not in ROLES:
                raise RequestError(f"a message has an unknown role: it must be one of {', '.join(ROLES)}")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self._bounded(self._required("messages").encode_chat(turns))

    def text(self, text: str) -> list[int]:
        """Raises: RequestError on an empty text or no tokenizer."""
        return self._bounded(self._required("a text").encode(text))

    def token_ids(self, ids: Sequence[int]) -> list[int]:
        """Raises: RequestError, also on an id beyond the vocabulary."""
        bounded = self._bounded(list(ids))
        for position, token in enumerate(bounded):
            if not 0 <= token < self._vocab_size:
                raise RequestError(f"token id {token} at position {position}: ids are 0 to {self._vocab_size - 1}")
        return bounded

    def _required(self, form: str) -> Tokenizer:
        if self._tokenizer is None:
            raise RequestError(f"this model has no tokenizer: it cannot take {form}, send token ids")
        return self._tokenizer

    def _bounded(self, ids: list[int]) -> list[int]:
        if not ids:
            raise RequestError("the prompt is empty: at least 1 token is needed")
        if len(ids) > self._context_tokens:
            raise PromptTooLongError(f"the prompt has {len(ids)} tokens: the context holds {self._context_tokens}")
        return ids
