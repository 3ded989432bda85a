"""Reading YAML strictly, with positions."""

import pytest
import yaml

from router.policy.document import MAX_BYTES, read


@pytest.mark.parametrize(
    ("raw", "finding"),
    [
        (b"", "p:1:1: the file is empty; start with `version: 1`"),
        (b"# only a comment\n", "p:1:1: the file is empty; start with `version: 1`"),
        (b"x" * (MAX_BYTES + 1), "p:1:1: the file has 262145 bytes; at most 262144"),
        (b"a: 1\nb: \xff", "p:2:4: not UTF-8; save the file as UTF-8"),
        (b"a: 1\nb: \x01", "p:2:4: a control character; remove it"),
        (b"a: 1\n\tb: 2", "p:2:1: found character '\\t' that cannot start any token; indent with spaces"),
        (b"a: [1", "p:1:6: expected ',' or ']', but got '<stream end>'"),
        (b"a: &x 1", "p:1:4: anchors and aliases are not allowed; write the value out"),
        (b"a: !!python/name:os.system x", "p:1:4: type tags are not allowed; write the value without `!`"),
        (b"a: 1\n---\nb: 2", "p:2:1: a second document begins; one file holds one policy"),
        (b"[" * 100_000, "p:1:13: nested deeper than 12 levels; no part of a policy is that deep"),
        (b"a: 1\nb: 2\na: 3", "p:3:1: the key a stands here again, after line 1; keep one of them"),
        (b"a: {b: 1, b: 2}", "p:1:11: the key b stands here again, after line 1; keep one of them"),
        (b"1: a", "p:1:1: a key must be a name; put it in quotes"),
        (b"? [a]\n: 1", "p:1:3: a key must be a name; put it in quotes"),
        (b"a: 1" + b"0" * 5000, "p:1:4: this is no value; put a text in quotes"),
    ],
)
def test_a_fault_is_a_finding_with_its_position(raw: bytes, finding: str) -> None:
    assert [str(found) for found in read(raw, "p").findings] == [finding]


def test_an_alias_bomb_is_not_expanded() -> None:
    levels = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert len(read("\n".join(levels).encode(), "p").findings) == 10 + 9 * 9


def test_values_are_those_of_yaml() -> None:
    doc = read(b"\xef\xbb\xbfa: 1\r\nb: [x, 2.5, true, null]\r\n", "p")
    assert doc.value == {"a": 1, "b": ["x", 2.5, True, None]}
    assert doc.findings == ()


def test_a_path_that_does_not_exist_is_placed_at_what_is_around_it() -> None:
    doc = read(b"a: 1\nb:\n  c: 2\n", "p")
    assert str(doc.finding(("b", "c", "d", 0), "x")) == "p:3:6: x"
    assert str(doc.finding(("b", "c"), "x", at_key=True)) == "p:3:3: x"
    assert str(doc.finding(("b", "d"), "x", "y", at_key=True)) == "p:3:3: x; y"
    assert str(doc.finding(("e",), "x")) == "p:1:1: x"


STYLES = [
    "when: aa || ⌖bb",
    "when:   'aa || ⌖bb'",
    "when: 'a''a || ⌖bb'",
    'when: "aa || ⌖bb"',
    'when: "a\\"a || ⌖bb"',
    "when: |\n    aa ||\n      ⌖bb\n",
    "when: |-  # why\n  aa\n\n  || ⌖bb",
    "when: >\n  aa ||\n  ⌖bb\n",
    "when: aa ||\n  ⌖bb",
    "{when: aa || ⌖bb}",
    "rest: 1\nwhen: aa || ⌖bb # aa bb",
]


@pytest.mark.parametrize("text", STYLES)
def test_a_place_inside_a_text_is_found_in_the_file_whatever_its_style(text: str) -> None:
    index = text.index("⌖")
    expected = (text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))
    text = text.replace("⌖", "")
    value = yaml.safe_load(text)["when"]
    offset = value.index("bb")
    line, column = value.count("\n", 0, offset) + 1, offset - value.rfind("\n", 0, offset)
    assert read(text.encode(), "p").place(("when",), line, column) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("when: aa", (1, 9)), ("when: |\n  aa\n", (2, 5)), ("when: ''", (1, 8))]
)
def test_a_place_behind_the_end_is_behind_the_last_character(text: str, expected: tuple[int, int]) -> None:
    value = yaml.safe_load(text)["when"]
    assert read(text.encode(), "p").place(("when",), 1, len(value.rstrip()) + 1) == expected
