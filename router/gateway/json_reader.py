"""Reads a JSON body strictly, and its fields by type. Errors name the parameter and never repeat the caller's text."""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NoReturn

from router.gateway.parameter import ParameterError

# Deeper than any request that this gateway understands.
MAX_DEPTH = 32
# Objects, lists and their items; far above what the limits on messages leave room for. Each takes the parser some 100
# bytes and a share of a microsecond, in which nobody else is served.
MAX_ITEMS = 200_000
# Up to the next item, over strings. Also where a string does not end: a pattern that could fail would be tried again
# from each place.
_NEXT_ITEM = re.compile(rb'(?:[^"{\[,]++|"(?:[^"\\]++|\\.)*+(?:"|\\?\Z))*+(?:[{\[,]|\Z)', re.DOTALL)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def parse_object(raw: bytes) -> dict[str, Any]:
    """Raises ParameterError: not UTF-8, not JSON, not an object, a key twice, NaN, too many items, nested too deep."""
    if _has_too_many_items(raw):
        raise ParameterError(None, f"the body has more than {MAX_ITEMS} objects, lists and items", "invalid_json")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
        depth = _depth(value)
    except ParameterError:
        raise
    except UnicodeDecodeError as exc:
        raise ParameterError(None, f"the body is not UTF-8 (byte {exc.start})", "invalid_json") from None
    except json.JSONDecodeError as exc:
        raise ParameterError(
            None, f"the body is not JSON: {exc.msg} at line {exc.lineno}, column {exc.colno}", "invalid_json"
        ) from None
    except RecursionError:
        raise ParameterError(None, f"the body is nested deeper than {MAX_DEPTH} levels", "invalid_json") from None
    except ValueError:
        # int() refuses thousands of digits.
        raise ParameterError(None, "the body holds a number that is too long", "invalid_json") from None
    if depth > MAX_DEPTH:
        raise ParameterError(None, f"the body is nested deeper than {MAX_DEPTH} levels", "invalid_json")
    if not isinstance(value, dict):
        raise ParameterError(None, "the body must be a JSON object", "invalid_json")
    return value


def shown(name: str) -> str:
    """A caller's key for an error message; what is no name could be content."""
    return name if _NAME.fullmatch(name) else "(not a name)"


class Fields:
    """One JSON object, read field by field; `done` refuses what nobody read."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self._values = values
        self._path = path
        self._read: set[str] = set()

    def param(self, key: str) -> str:
        return f"{self._path}{key}"

    def raw(self, key: str) -> Any:
        self._read.add(key)
        return self._values.get(key)

    def text(self, key: str, max_chars: int = 256) -> str | None:
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.fail(key, "must be a text")
        if len(value) > max_chars:
            self.fail(key, f"has {len(value)} characters; at most {max_chars}")
        return value

    def flag(self, key: str) -> bool:
        value = self.raw(key)
        if value is not None and not isinstance(value, bool):
            self.fail(key, "must be true or false")
        return bool(value)

    def integer(self, key: str) -> int | None:
        value = self.raw(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            self.fail(key, "must be an integer")
        return value

    def number(self, key: str) -> float | None:
        value = self.raw(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, "must be a number")
        try:
            return float(value)
        except OverflowError:
            self.fail(key, "is beyond any number that makes sense here")

    def choice(self, key: str, allowed: Iterable[str]) -> str | None:
        value = self.text(key)
        if value is not None and value not in allowed:
            self.fail(key, f"must be one of {', '.join(allowed)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A text or a list of texts."""
        value = self.raw(key)
        if value is None:
            return ()
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            self.fail(key, "must be a text or a list of texts")
        return tuple(items)

    def sub(self, key: str) -> "Fields | None":
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fail(key, "must be an object")
        return Fields(value, f"{self.param(key)}.")

    def rest(self) -> Iterable[str]:
        return [key for key in self._values if key not in self._read]

    def done(self) -> None:
        """Raises ParameterError for the first field that nobody read."""
        for key in self.rest():
            self.fail(shown(key), "unknown parameter", "unknown_parameter")

    def fail(self, key: str, message: str, code: str = "invalid_value") -> NoReturn:
        raise ParameterError(self.param(key), message, code)


def _has_too_many_items(raw: bytes) -> bool:
    # Strings may hold such characters, so that few of them settle the question and many do not.
    if raw.count(b"{") + raw.count(b"[") + raw.count(b",") <= MAX_ITEMS:
        return False
    items = islice(_NEXT_ITEM.finditer(raw), MAX_ITEMS + 1)
    return sum(match.end() > match.start() for match in items) > MAX_ITEMS


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers of one body must not see different values."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ParameterError(None, "the body has a key twice in one object", "invalid_json")
    return values


def _no_constant(_name: str) -> NoReturn:
    raise ParameterError(None, "the body holds NaN or Infinity, which JSON has not", "invalid_json")


def _depth(value: object) -> int:
    """Levels of objects and lists, without recursion; stops counting past the limit."""
    level: list[object] = [value]
    depth = 0
    while level and depth <= MAX_DEPTH:
        nested = [item for item in level if isinstance(item, dict | list)]
        if nested:
            depth += 1
        level = [child for item in nested for child in (item.values() if isinstance(item, dict) else item)]
    return depth
