"""The text that a model is calibrated with, as token ids."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edge.checkpoint.precision import CALIBRATION_TOKENS
from edge.errors import CalibrationError, EdgeError
from edge.prompt import ROLES
from edge.tokenizer import Tokenizer

MAX_BYTES = 64 * 2**20  # of a file: far more than is ever used, and read whole
SEQUENCE_TOKENS = 2048  # longer texts are cut: attention to what is further back tells calibration nothing new


@dataclass(frozen=True, slots=True)
class Corpus:
    """Sequences of token ids, each at most SEQUENCE_TOKENS, and what tells their source from another."""

    sequences: tuple[Sequence[int], ...]
    sha256: str  # of the file

    @property
    def num_tokens(self) -> int:
        """In all sequences."""
        return sum(map(len, self.sequences))


def read_corpus(file: Path, checkpoint: Path, vocab_size: int, max_tokens: int = CALIBRATION_TOKENS) -> Corpus:
    """The first `max_tokens` tokens of a file: *.jsonl with {"messages": [...]} on each line, or else plain text.

    Raises: CalibrationError naming the file, and the line where there is one, but nothing of its text.
    """
    if max_tokens < 1:
        raise CalibrationError(f"{max_tokens} calibration tokens; must be at least 1")
    data = _read(file)
    if not (checkpoint / "tokenizer.json").is_file():
        raise CalibrationError(f"{checkpoint} has no tokenizer.json, so {file} cannot be made token ids of this model")
    tokenizer = Tokenizer.from_dir(checkpoint)
    texts = _chats(file, data, tokenizer) if file.suffix == ".jsonl" else _plain(file, data, tokenizer)
    sequences, room = list[Sequence[int]](), max_tokens
    for ids in texts:
        taken = ids[:room]
        sequences += [taken[begin : begin + SEQUENCE_TOKENS] for begin in range(0, len(taken), SEQUENCE_TOKENS)]
        room -= len(taken)
        if not room:
            break
    if not sequences:
        raise CalibrationError(f"{file}: holds no text")
    most = max(map(max, sequences))
    if most >= vocab_size:
        raise CalibrationError(
            f"{file}: has a token with id {most}; the model's ids are 0 to {vocab_size - 1}: "
            f"{checkpoint / 'tokenizer.json'} is of another model"
        )
    return Corpus(tuple(sequences), hashlib.sha256(data).hexdigest())


def _read(file: Path) -> bytes:
    try:
        nbytes = file.stat().st_size
        if nbytes > MAX_BYTES:
            raise CalibrationError(f"{file}: {nbytes} bytes; at most {MAX_BYTES} are read: take a part of it")
        return file.read_bytes()
    except OSError as error:
        raise CalibrationError(f"{file}: {error.strerror}") from error


def _plain(file: Path, data: bytes, tokenizer: Tokenizer) -> Iterator[list[int]]:
    text = _decoded(file, data)
    if text.strip():
        yield _encoded(f"{file}", partial(tokenizer.encode, text))


def _chats(file: Path, data: bytes, tokenizer: Tokenizer) -> Iterator[list[int]]:
    for number, line in enumerate(_decoded(file, data).splitlines(), 1):
        if line.strip():
            where = f"{file}, line {number}"
            messages = _messages(where, line)
            yield _encoded(where, partial(tokenizer.encode_chat, messages))


def _messages(where: str, line: str) -> list[dict[str, str]]:
    try:
        chat = json.loads(line)
    except (ValueError, RecursionError):
        raise CalibrationError(f"{where}: not JSON") from None  # the library's words would quote the text
    messages = chat.get("messages") if isinstance(chat, dict) else None
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise CalibrationError(
            f'{where}: must be {{"messages": [{{"role": ..., "content": ...}}, ...]}} with roles {", ".join(ROLES)}'
        )
    return messages


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") in ROLES and isinstance(message.get("content"), str)


def _decoded(file: Path, data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{file}: not text: byte {error.start} is not UTF-8") from None
    if "\0" in text:
        raise CalibrationError(f"{file}: not text: it holds zero bytes")
    return text


def _encoded(where: str, encode: Callable[[], list[int]]) -> list[int]:
    try:
        return encode()
    except EdgeError as error:
        raise CalibrationError(f"{where}: {error}") from error
