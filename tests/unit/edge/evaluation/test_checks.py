"""The judges: what they let through, what not, and that no answer makes them fail or dawdle."""

import pytest

from edge.evaluation.checks import (
    Check,
    EndsWith,
    LastNumber,
    Mentions,
    SameJson,
    SameText,
    dump_check,
    load_check,
)

EACH = (
    SameText("a, b"),
    LastNumber("12"),
    EndsWith("3 May"),
    SameJson('{"a": 1, "b": [null, "é"]}'),
    Mentions(("milk",), ("nuts",)),
)
LONG = 200_000


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (SameText("a, b"), ["a, b", " a, b.\n"], ["a b", "A, b", ""]),
        (LastNumber("12"), ["12", "3 × 4 = 12", "12.0 km"], ["3 × 4 = 13", "12 and 5", "twelve", ""]),
        (LastNumber("0.5"), ["0.5 km", "0.50"], ["5", "05"]),
        (LastNumber("-3"), ["it is -3"], ["3", "- 3"]),
        (EndsWith("3 May"), ["3 May", "1 + 2 = 3: 3 May."], ["13 May", "3 May 2", "3 June", ""]),
        (EndsWith("no."), ["I say no.", "no..", "no.  \n"], ["no", "casino."]),
        (SameJson('{"a": 1, "b": null}'), ['{"b": null, "a": 1}'], ['{"a": 1}', '{"a": true, "b": null}', "a"]),
        (SameJson('{"a": 1}'), [' {"a":1}\n', '{"a": 1.0}', '{"a": 10e-1}'], ['{"a": 1} and so on', "{'a': 1}"]),
        (SameJson("[1, [2]]"), ["[1,[2.0]]"], ["[[2], 1]", "[1, [2], 3]", "[1, 2]", '["1", [2]]']),
        (Mentions(("milk",), ("nuts",)), ["Milk.", "It is milk"], ["milkshake", "milk or nuts", ""]),
    ],
)
def test_a_judge_tells_right_from_wrong(check: Check, right: list[str], wrong: list[str]) -> None:
    assert all(check(answer) for answer in right)
    assert not any(check(answer) for answer in wrong)


@pytest.mark.parametrize(
    "answer",
    [
        "[" * LONG,
        "[" * LONG + "]" * LONG,
        '{"a":' * LONG,
        '{"a": NaN}',
        "-Infinity",
        '{"a": 2, "a": 1, "b": [null, "é"]}',
        '{"a": ' + "1" * LONG + "}",
        "1e99999999999999999999",
        "9" * LONG,
        "9." * LONG,
        "-" * LONG,
        " " * LONG + "x",
        "3 May" + " " * LONG + "x",
        "3 May." * (LONG // 6) + "!",
        "milk" * LONG,
        "\ud800",
        "\x00",
        "",
    ],
    ids=lambda answer: repr(answer[:12]),
)
def test_a_hostile_answer_is_wrong_and_nothing_worse(answer: str) -> None:
    assert not any(check(answer) for check in EACH)


def test_numbers_are_compared_in_all_their_digits() -> None:
    big = "9" * 5000
    assert LastNumber(big)(f"it is {big}.0")
    assert not LastNumber(big)(f"it is {big[:-1]}8")
    assert SameJson(big)(big)
    assert not SameJson("0.1")("0.1000000000000000055511151231257827")


@pytest.mark.parametrize("check", EACH, ids=lambda check: check.kind)
def test_a_check_is_the_same_after_being_written_and_read(check: Check) -> None:
    assert load_check(dump_check(check)) == check


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "must be an object whose kind is one of same_text, last_number"),
        ({}, "kind is one of"),
        ({"kind": ["same_text"]}, "kind is one of"),
        ({"kind": "shell", "text": "rm"}, "kind is one of"),
        ({"kind": "same_text"}, "a same_text has the fields text"),
        ({"kind": "same_text", "text": "a", "regex": "(a+)+"}, "a same_text has the fields text"),
        ({"kind": "same_text", "text": 5}, "must be texts"),
        ({"kind": "last_number", "number": "five"}, "number is none"),
        ({"kind": "last_number", "number": "1e5"}, "number is none"),
        ({"kind": "ends_with", "text": ""}, "text is empty"),
        ({"kind": "ends_with", "text": " a"}, "space around"),
        ({"kind": "same_json", "text": "{"}, "Expecting property name"),
        ({"kind": "same_json", "text": "NaN"}, "NaN is no JSON"),
        ({"kind": "same_json", "text": "[" * 65 + "]" * 65}, "nested more than 64 deep"),
        ({"kind": "mentions", "wanted": []}, "wanted is empty"),
        ({"kind": "mentions", "wanted": "abc"}, "wanted must be a list of texts"),
        ({"kind": "mentions", "wanted": ["a", 3]}, "wanted must be a list of texts"),
        ({"kind": "mentions", "wanted": ["a"], "unwanted": [""]}, "a word is empty"),
    ],
)
def test_what_is_no_check_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_check(value)
