"""The judges: what they let through and what not."""

import pytest

from ops.demo.tasks.checks import Check, EndsWith, LastNumber, Mentions, SameJson, SameText


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (SameText("a, b"), ["a, b", " a, b.\n"], ["a b", "A, b", ""]),
        (LastNumber("12"), ["12", "3 × 4 = 12", "12.0 km"], ["3 × 4 = 13", "12 and 5", "twelve", ""]),
        (LastNumber("0.5"), ["0.5 km", "0.50"], ["5", "05"]),
        (EndsWith("3 May"), ["3 May", "1 + 2 = 3: 3 May."], ["13 May", "3 May 2", "3 June", ""]),
        (SameJson('{"a": 1, "b": null}'), ['{"b": null, "a": 1}'], ['{"a": 1}', '{"a": true, "b": null}', "a"]),
        (SameJson('{"a": 1}'), [' {"a":1}\n', '{"a": 1.0}'], ['{"a": 1} and so on', "{'a': 1}", '["a"]']),
        (Mentions(("milk",), ("nuts",)), ["Milk.", "It is milk"], ["milkshake", "milk or nuts", ""]),
    ],
)  # fmt: skip
def test_a_judge_tells_right_from_wrong(check: Check, right: list[str], wrong: list[str]) -> None:
    assert all(check(answer) for answer in right)
    assert not any(check(answer) for answer in wrong)
