"""Strict JSON: what is refused, and that no refusal repeats the caller's text."""

import json

import pytest

from router.gateway.json_reader import MAX_DEPTH, Fields, parse_object
from router.gateway.parameter import ParameterError

CANARY = "CANARY-4711"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": CANARY-4711}', "not JSON"),
        (b"[]", "must be a JSON object"),
        (b'"CANARY-4711"', "must be a JSON object"),
        (b"\xff{}", "not UTF-8"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "NaN or Infinity"),
        (b'{"CANARY-4711": 1, "CANARY-4711": 2}', "a key twice"),
        (b'{"a": {"b": 1, "b": 2}}', "a key twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "too long"),
        (b'{"a": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "deeper"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeper"),
        (b'{"a":' * 100_000, "deeper|not JSON"),
    ],
)
def test_bad_bodies_are_refused(raw: bytes, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        parse_object(raw)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None or CANARY not in str(caught.value.__cause__)


def test_object_at_the_depth_limit_is_read() -> None:
    depth = MAX_DEPTH - 1
    assert parse_object(b'{"a": ' + b"[" * depth + b"]" * depth + b"}")


def fields(**values: object) -> Fields:
    return Fields(values, "x.")


@pytest.mark.parametrize(
    ("read", "value"),
    [
        ("text", 1),
        ("text", "x" * 257),
        ("flag", 1),
        ("flag", "true"),
        ("integer", True),
        ("integer", 1.0),
        ("integer", "1"),
        ("number", True),
        ("number", "1"),
        ("number", 10**400),
        ("texts", 1),
        ("texts", ["a", 1]),
        ("texts", {"a": 1}),
        ("sub", []),
    ],
)
def test_field_of_another_type_is_refused_by_its_path(read: str, value: object) -> None:
    with pytest.raises(ParameterError) as caught:
        getattr(fields(a=value), read)("a")
    assert caught.value.param == "x.a"


def test_choice_names_what_is_allowed() -> None:
    with pytest.raises(ParameterError, match="one of near, far") as caught:
        fields(a=CANARY).choice("a", ("near", "far"))
    assert CANARY not in str(caught.value)


def test_null_is_like_missing() -> None:
    values = fields(a=None)
    for read in ("text", "integer", "number", "sub"):
        assert getattr(values, read)("a") is None
    assert values.flag("a") is False
    assert values.texts("a") == ()
    values.done()


def test_unread_field_is_refused_by_its_path() -> None:
    with pytest.raises(ParameterError, match="unknown parameter") as caught:
        fields(extra=1).done()
    assert caught.value.param == "x.extra"
    assert caught.value.code == "unknown_parameter"


def test_unread_field_that_is_no_name_is_not_repeated() -> None:
    with pytest.raises(ParameterError) as caught:
        Fields({f"{CANARY} is my secret": 1}).done()
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("item", ["{}", "[]", "1"])
def test_body_of_very_many_items_is_refused_before_it_is_parsed(item: str) -> None:
    with pytest.raises(ParameterError, match="more than 200000 objects, lists and items"):
        parse_object(f'{{"a": [{",".join([item] * 200_001)}]}}'.encode())


def test_text_may_hold_what_looks_like_many_items() -> None:
    text = '[{,\\"' * 100_000
    assert parse_object(json.dumps({"a": text}).encode()) == {"a": text}
