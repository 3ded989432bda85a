"""Programs that judge an answer. Each takes the answer's text and says whether it is right."""

import json
import re
from dataclasses import dataclass
from typing import Any, Protocol

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Check(Protocol):
    """Whether an answer is right."""

    def __call__(self, answer: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class SameText:
    """The very text, but for space around it and a full stop at its end."""

    text: str

    def __call__(self, answer: str) -> bool:
        return answer.strip().rstrip(".") == self.text.strip().rstrip(".")


@dataclass(frozen=True, slots=True)
class LastNumber:
    """The last number of the answer, whatever steps stand before it."""

    number: str

    def __call__(self, answer: str) -> bool:
        found = NUMBER.findall(answer)
        return bool(found) and float(found[-1]) == float(self.number)


@dataclass(frozen=True, slots=True)
class EndsWith:
    """The last words of the answer, whatever steps stand before them."""

    text: str

    def __call__(self, answer: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(self.text)}\.?\s*$", answer) is not None


@dataclass(frozen=True, slots=True)
class SameJson:
    """JSON of the same value, and nothing beside it. Two numbers are the same if they are equal."""

    text: str

    def __call__(self, answer: str) -> bool:
        try:
            return bool(_typed(json.loads(answer)) == _typed(json.loads(self.text)))
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Mentions:
    """Each of some words, and none of others, in any case."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = ()

    def __call__(self, answer: str) -> bool:
        return all(_has(answer, word) for word in self.wanted) and not any(_has(answer, word) for word in self.unwanted)


def _has(answer: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE) is not None


def _typed(value: Any) -> Any:
    """Python holds true and 1 for equal; JSON does not."""
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_typed(item) for item in value]
    return (isinstance(value, bool), value)
