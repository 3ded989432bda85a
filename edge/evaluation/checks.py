"""Programs that judge an answer: a closed set, each a value that a question file can hold.

An answer is whatever a model wrote: judging takes time in proportion to its length, and never raises.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import Any, ClassVar

from edge.evaluation.strict_json import is_same_json, parse_json

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
WORD_CHARACTER = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class SameText:
    """The very text, but for space around it and full stops at its end."""

    kind: ClassVar[str] = "same_text"
    text: str

    def __call__(self, answer: str) -> bool:
        return answer.strip().rstrip(".") == self.text.strip().rstrip(".")


@dataclass(frozen=True, slots=True)
class LastNumber:
    """The last number of the answer, whatever steps stand before it. 0.5 and 0.50 are the same."""

    kind: ClassVar[str] = "last_number"
    number: str

    def __post_init__(self) -> None:
        if not NUMBER.fullmatch(self.number):
            raise ValueError("number is none: write it like -12 or 0.5")

    def __call__(self, answer: str) -> bool:
        found = None
        for found in NUMBER.finditer(answer):  # noqa: B007 -- the last one is meant
            pass
        # As decimals: they have no limit of digits as int() has, and no rounding that makes two numbers one as float's.
        return found is not None and Decimal(found[0]) == Decimal(self.number)


@dataclass(frozen=True, slots=True)
class EndsWith:
    """The last words of the answer, whatever steps stand before them; a full stop may follow."""

    kind: ClassVar[str] = "ends_with"
    text: str

    def __post_init__(self) -> None:
        _require_words("text", self.text)

    def __call__(self, answer: str) -> bool:
        stripped = answer.rstrip()
        return any(_ends_with_words(end, self.text) for end in (stripped, stripped.removesuffix(".")))


@dataclass(frozen=True, slots=True)
class SameJson:
    """JSON of the same value and nothing beside it: order of names is free, two numbers are the same if equal."""

    kind: ClassVar[str] = "same_json"
    text: str

    def __post_init__(self) -> None:
        parse_json(self.text)

    def __call__(self, answer: str) -> bool:
        try:
            return is_same_json(parse_json(answer), parse_json(self.text))
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Mentions:
    """Each of some words, and none of others, in any case."""

    kind: ClassVar[str] = "mentions"
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.wanted:
            raise ValueError("wanted is empty: every answer would be right")
        for word in (*self.wanted, *self.unwanted):
            _require_words("a word", word)

    def __call__(self, answer: str) -> bool:
        return all(_has(answer, word) for word in self.wanted) and not any(_has(answer, word) for word in self.unwanted)


Check = SameText | LastNumber | EndsWith | SameJson | Mentions
KINDS: dict[str, type[Check]] = {check.kind: check for check in (SameText, LastNumber, EndsWith, SameJson, Mentions)}


def dump_check(check: Check) -> dict[str, Any]:
    """As plain JSON values: its kind and its fields."""
    return {"kind": check.kind, **asdict(check)}


def load_check(value: Any) -> Check:
    """The reverse of `dump_check`. Raises ValueError saying what is wrong with the value, without quoting it."""
    given = dict(value) if isinstance(value, Mapping) else {}
    kind = given.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"must be an object whose kind is one of {', '.join(KINDS)}")
    if kind == Mentions.kind:
        given = {key: _words(key, item) for key, item in given.items()}
    elif not all(isinstance(item, str) for item in given.values()):
        raise ValueError("its fields must be texts")
    try:
        return KINDS[kind](**given)
    except TypeError:
        names = ", ".join(field.name for field in fields(KINDS[kind]))
        raise ValueError(f"a {kind} has the fields {names}") from None


def _words(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{key} must be a list of texts")
    return tuple(value)


def _require_words(name: str, text: str) -> None:
    if not text.strip() or text != text.strip():
        raise ValueError(f"{name} is empty or has space around it")


def _ends_with_words(answer: str, text: str) -> bool:
    before = len(answer) - len(text) - 1
    return answer.endswith(text) and (before < 0 or not WORD_CHARACTER.match(answer[before]))


def _has(answer: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", answer, re.IGNORECASE) is not None
