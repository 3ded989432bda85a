"""The words of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_stub.answer import DEFAULT_TEXT, Answer, compose, tokenize


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text


@given(
    st.text("ab c\n", max_size=30), st.none() | st.integers(1, 12), st.lists(st.text("ab c", min_size=1), max_size=3)
)
def test_an_answer_begins_the_text_and_ends_before_any_stop(text: str, max_tokens: int | None, stop: list[str]) -> None:
    answer = compose(text, max_tokens, stop)
    sent = "".join(answer.tokens)
    assert text.startswith(sent)
    assert not any(word in sent for word in stop)
    assert max_tokens is None or len(answer.tokens) <= max_tokens
    assert (answer.finish_reason == "length") <= (len(answer.tokens) == max_tokens)


@pytest.mark.parametrize(
    ("max_tokens", "stop", "expected"),
    [
        (None, (), Answer(("one", " two", " three"), "stop")),
        (3, (), Answer(("one", " two", " three"), "stop")),
        (2, (), Answer(("one", " two"), "length")),
        (None, ("two",), Answer(("one", " "), "stop")),
        (2, ("three",), Answer(("one", " two"), "length")),
        (None, ("e t", "wo"), Answer(("on",), "stop")),
        (None, ("one",), Answer((), "stop")),
    ],
)
def test_the_first_end_wins(max_tokens: int | None, stop: tuple[str, ...], expected: Answer) -> None:
    assert compose("one two three", max_tokens, stop) == expected


def test_the_default_text_cannot_be_taken_for_a_model() -> None:
    assert "stub" in DEFAULT_TEXT
    assert "No language model" in DEFAULT_TEXT
