"""Turns token ids into text as they come, never sending half a character.

A token may end inside a UTF-8 character, and what a token reads as may depend on the one before it. So a short window
of recent tokens is decoded each time and only what can no longer change is given out.
"""

from collections.abc import Callable, Collection, Sequence

REPLACEMENT = "\ufffd"


class Detokenizer:
    """The texts of all `push` and of `finish` together are `decode` of all ids.

    decode: ids to text. byte_ids: tokens that stand for one byte each, as SentencePiece's `<0xE2>`; a run of them is
    held back whole, since one bad byte turns the whole run into replacement characters.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], byte_ids: Collection[int] = ()) -> None:
        self._decode = decode
        self._byte_ids = byte_ids
        self._window: list[int] = []
        # The window's first tokens were given out; they stay as the left neighbours of the next ones.
        self._num_neighbours = 0
        self._neighbour_text = ""
        self._num_sent = 0
        self._was_in_byte_run = False

    def push(self, token: int) -> str:
        """The text that became certain by `token`; often the token's own, "" while a character is incomplete."""
        self._window.append(token)
        if self._is_in_byte_run(token):
            return ""
        text = self._decode(self._window)[len(self._neighbour_text) :]
        # Bytes that could still become a character decode to one replacement character at the end.
        is_complete = not text.endswith(REPLACEMENT)
        certain = text if is_complete else text[:-1]
        new = certain[self._num_sent :]
        self._num_sent = len(certain)
        if is_complete and text:
            self._move_window()
        return new

    def finish(self) -> str:
        """What was held back; a character left incomplete reads as U+FFFD, as in a full decode."""
        text = self._decode(self._window)[len(self._neighbour_text) :]
        new = text[self._num_sent :]
        self._num_sent = len(text)
        return new

    def _is_in_byte_run(self, token: int) -> bool:
        if not self._byte_ids:
            return False
        # A token that reads as nothing (a special one) does not end a run.
        continues = self._was_in_byte_run and not self._decode([token])
        self._was_in_byte_run = continues or token in self._byte_ids
        return self._was_in_byte_run

    def _move_window(self) -> None:
        self._window = self._window[self._num_neighbours :]
        self._num_neighbours = len(self._window)
        self._neighbour_text = self._decode(self._window)
        self._num_sent = 0
