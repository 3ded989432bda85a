"""Prompts for a whole run: JSON Lines, on each line {"messages": [{"role": …, "content": …}, …]} or {"prompt": "…"}.

Other fields are passed over, so that a file of questions for `eval` will do. Errors name the line and never quote it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge.errors import RequestError
from edge.prompt import ChatMessage, PromptEncoder

MAX_FILE_BYTES = 64 * 1024**2


def read_prompts(path: Path, encoder: PromptEncoder, limit: int | None = None) -> list[list[int]]:
    """The token ids of the first `limit` prompts, at least one. Raises RequestError naming the file and the line."""
    if limit is not None and limit < 1:
        raise RequestError(f"limit is {limit}: it must be at least 1")
    prompts = list[list[int]]()
    for number, line in _lines(path):
        if limit is not None and len(prompts) == limit:
            break
        try:
            prompts.append(_encoded(json.loads(line), encoder))
        except (ValueError, RecursionError):
            raise RequestError(f"{path}:{number}: not JSON") from None
        except RequestError as error:
            raise RequestError(f"{path}:{number}: {error}") from error
    if not prompts:
        raise RequestError(f"{path}: holds no prompt")
    return prompts


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Those that are not empty, with their numbers."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise RequestError(f"{path}: holds more than {MAX_FILE_BYTES} bytes of prompts")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{path}: not UTF-8 at byte {error.start}") from error
    # And at no other character that ends lines: JSON may hold those in a text.
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _encoded(value: Any, encoder: PromptEncoder) -> list[int]:
    match value:
        case {"messages": [*messages]} if messages and all(map(_is_message, messages)):
            return encoder.chat([ChatMessage(message["role"], message["content"]) for message in messages])
        case {"prompt": str(text)}:
            return encoder.text(text)
    raise RequestError('must be {"messages": [{"role": "user", "content": "…"}]} or {"prompt": "…"}')


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))
