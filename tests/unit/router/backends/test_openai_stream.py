"""Streams of chat completions as clouds send them, and as they should not."""

import json

import pytest

from router.backends.backend import Finished, TextDelta
from router.backends.openai_stream import CompletionStream, StreamError, error_name


def chunk(text: str | None = None, finish_reason: object = None, **more: object) -> dict[str, object]:
    delta = {} if text is None else {"content": text}
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **more}


def event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def read(*values: object, done: bool = True) -> tuple[list[str], Finished]:
    stream = CompletionStream()
    pieces = [event(value) for value in values] + ([b"data: [DONE]\n\n"] if done else [])
    texts = [delta.text for piece in pieces for delta in stream.feed(piece)]
    return texts, stream.end()


def test_text_reason_and_usage_are_read() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
    assert read(chunk(""), chunk("a"), chunk("b"), chunk(None, "length"), usage) == (
        ["a", "b"],
        Finished("length", 3, 2),
    )


def test_missing_usage_and_done_are_forgiven() -> None:
    assert read(chunk("a"), chunk(None, "stop"), done=False) == (["a"], Finished("stop", None, None))


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": -1, "completion_tokens": True}, {"prompt_tokens": "3"}])
def test_unusable_usage_counts_as_none(usage: object) -> None:
    assert read(chunk("a", "stop", usage=usage))[1] == Finished("stop", None, None)


def test_nothing_after_done_is_read() -> None:
    stream = CompletionStream()
    assert list(stream.feed(b"data: [DONE]\n\n" + event(chunk("late")))) == []
    assert stream.is_done


def test_stream_without_a_finish_reason_is_no_answer() -> None:
    with pytest.raises(StreamError, match="ended before the answer did"):
        read(chunk("a"))


@pytest.mark.parametrize("data", ["{", "[1]", '"x"', "[" * 100_000])
def test_event_that_is_no_object_breaks_the_stream(data: str) -> None:
    with pytest.raises(StreamError, match=r"not (JSON|a JSON object)"):
        list(CompletionStream().feed(f"data: {data}\n\n".encode()))


def test_error_in_the_stream_is_named_by_its_code_only() -> None:
    error = {"error": {"message": "your prompt was CANARY", "code": "server_overloaded"}}
    with pytest.raises(StreamError, match=r"\(server_overloaded\)") as caught:
        read(chunk("a"), error)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("reason", ["content_filter", "tool_calls", "CANARY text", 7])
def test_other_finish_reasons_are_no_whole_answer(reason: object) -> None:
    with pytest.raises(StreamError) as caught:
        read(chunk("a", reason))
    assert "CANARY" not in str(caught.value)


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(StreamError, match="surrogate"):
        list(CompletionStream().feed(event(chunk("\ud83d"))))


@pytest.mark.parametrize("choices", [None, [], ["x"], [{"delta": None}], [{"delta": {"content": 7}}], {"0": {}}])
def test_odd_choices_hold_no_text(choices: object) -> None:
    assert list(CompletionStream().feed(event({"choices": choices}))) == []


@pytest.mark.parametrize("body", [None, [], {}, {"error": "CANARY"}, {"error": {"code": "Has Space", "type": 3}}])
def test_error_without_a_name_is_not_named(body: object) -> None:
    assert error_name(body) == ""


def test_text_delta_is_never_empty() -> None:
    assert list(CompletionStream().feed(event(chunk("")) + event(chunk("x")))) == [TextDelta("x")]
