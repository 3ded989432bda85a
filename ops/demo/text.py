"""Chats as token ids, each with the mark of who said it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ops.demo.tasks.dialogue import Dialogue
from ops.demo.tokenizer import TURN_END, TURN_START

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chat's ids, and which of them the model is to say itself: answers with the mark of their end."""

    ids: list[int]
    is_answer: list[bool]


def load_tokenizer(path: Path) -> "Tokenizer":
    """Of the directory that `train_tokenizer` wrote. Raises: FileNotFoundError with the remedy."""
    from tokenizers import Tokenizer

    file = path / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: python -m ops.demo tokenizer {path} makes it")
    return Tokenizer.from_file(str(file))


def encode(tokenizer: "Tokenizer", dialogues: Sequence[Dialogue]) -> list[Encoded]:
    """Piece by piece, at borders where the whole chat's encoding has borders too: tests compare the two."""
    pieces = [_pieces(dialogue) for dialogue in dialogues]
    texts = [text for chat in pieces for text, _ in chat]
    ids = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    encoded = []
    for chat in pieces:
        all_ids: list[int] = []
        marks: list[bool] = []
        for _, is_answer in chat:
            piece = next(ids).ids
            all_ids += piece
            marks += [is_answer] * len(piece)
        encoded.append(Encoded(all_ids, marks))
    return encoded


def _pieces(dialogue: Dialogue) -> list[tuple[str, bool]]:
    """What the chat template gives, cut where the speaker changes."""
    pieces: list[tuple[str, bool]] = []
    for turn in dialogue.turns:
        pieces.append((f"{TURN_START}user\n{turn.question}{TURN_END}\n{TURN_START}assistant\n", False))
        pieces.append((f"{turn.answer}{TURN_END}", True))
        pieces.append(("\n", False))
    return pieces
