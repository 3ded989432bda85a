"""What becomes of generated tokens on their way to the reader: text, and the places where an answer ends early."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edge.errors import RequestError
from edge.stop import StopScanner
from edge.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """New tokens and the text that became certain with them. `is_last`: the answer ends here, by its own rules."""

    ids: tuple[int, ...]
    text: str
    is_last: bool = False


class AnswerStream:
    """Follows one answer token by token. Ends it at a stop text or at an id of `end_ids`, which is then left out.

    tokenizer: None for a model without one; texts are then empty.
    Raises: RequestError on stop texts that are malformed, or that a model without tokenizer can never meet.
    """

    def __init__(self, tokenizer: Tokenizer | None, stops: Sequence[str], end_ids: Collection[int]) -> None:
        if stops and tokenizer is None:
            raise RequestError("this model has no tokenizer: stop texts cannot be found in its answers")
        self._detokenizer = tokenizer.detokenizer() if tokenizer else None
        self._scanner = StopScanner(stops)
        self._end_ids = end_ids

    def push(self, token: int) -> Piece:
        if token in self._end_ids:
            return Piece((), self.finish(), is_last=True)
        if self._detokenizer is None:
            return Piece((token,), "")
        text = self._scanner.push(self._detokenizer.push(token))
        return Piece((token,), text, self._scanner.is_stopped)

    def finish(self) -> str:
        """The text held back, once no more tokens will come."""
        if self._detokenizer is None:
            return ""
        return self._scanner.push(self._detokenizer.finish()) + self._scanner.finish()
