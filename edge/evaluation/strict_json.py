"""JSON that anybody may have written, read without surprises: RFC 8259 alone, nothing that Python's reader adds to it.

NaN and Infinity are no JSON. A name that stands twice in an object is refused (I-JSON, RFC 7493 section 2.3): which of
the two counts is anybody's guess. Numbers are exact decimals of any length. Nesting ends at MAX_DEPTH.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import Any, Never

MAX_DEPTH = 64


def parse_json(text: str) -> Any:
    """The value, its numbers as Decimal. Raises ValueError, and nothing else, for what is no such JSON."""
    try:
        value = json.loads(
            text, parse_int=_number, parse_float=_number, parse_constant=_refuse, object_pairs_hook=_unique
        )
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    _check_depth(value, MAX_DEPTH)
    return value


def is_json(text: str) -> bool:
    """Whether `parse_json` reads it."""
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def is_same_json(one: Any, other: Any) -> bool:
    """Whether two values that `parse_json` gave are the same JSON. Python holds true and 1 for equal; JSON does not."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same_json(item, other[key]) for key, item in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same_json, one, other))
    return bool(one == other)


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("a number beyond all range") from None


def _refuse(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return value


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, dict | list):
        if not left:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)
