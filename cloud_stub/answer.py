"""The words of an answer: a stated text, cut into tokens, ended by max_tokens or a stop text. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

DEFAULT_TEXT = (
    "This is flashgate's cloud stub answering. No language model has read the request: every request gets this same "
    "text, word by word, so that routing, streaming and failures can be tried without a cloud account. "
    "To reach a real cloud, start the gateway with --cloud-openai and the base URL of an OpenAI-compatible service."
)

_TOKEN = re.compile(r"\s*\S+|\s+")

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The tokens to send, in order, and why there are no more."""

    tokens: tuple[str, ...]
    finish_reason: FinishReason


def tokenize(text: str) -> list[str]:
    """Cut into words, each with the white space before it; joined they are the text again."""
    return _TOKEN.findall(text)


def compose(text: str, max_tokens: int | None, stop: Sequence[str]) -> Answer:
    """Answer with `text`, ended before the first of the stop texts or after max_tokens, whichever comes first."""
    tokens = tokenize(text)
    kept = tokens if max_tokens is None else tokens[:max_tokens]
    sent = "".join(kept)
    stops = [place for place in (sent.find(word) for word in stop) if place >= 0]
    if stops:
        return Answer(tuple(tokenize(sent[: min(stops)])), "stop")
    return Answer(tuple(kept), "length" if len(kept) < len(tokens) else "stop")
