"""Server-sent events, cut anywhere."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.backends.sse import MAX_EVENT_BYTES, SseError, SseReader

STREAM = ': ping\r\n\r\ndata: {"a":"ü"}\r\n\r\nevent: x\ndata:first\ndata: second\n\ndata: [DONE]\n\n'.encode()
EVENTS = ['{"a":"ü"}', "first\nsecond", "[DONE]"]


def read(pieces: list[bytes]) -> list[str]:
    reader = SseReader()
    return [data for piece in pieces for data in reader.feed(piece)]


@given(st.sets(st.integers(0, len(STREAM))))
def test_cuts_change_nothing(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(places)]
    assert read(pieces) == EVENTS


def test_event_without_its_empty_line_is_no_event() -> None:
    assert read([b"data: half\n"]) == []


def test_line_without_end_is_refused() -> None:
    with pytest.raises(SseError, match=f"more than {MAX_EVENT_BYTES} bytes"):
        read([b"x" * (MAX_EVENT_BYTES // 2)] * 3)


def test_event_of_endless_lines_is_refused() -> None:
    line = b"data: " + b"x" * 1000 + b"\n"
    with pytest.raises(SseError, match=f"more than {MAX_EVENT_BYTES} bytes"):
        read([line] * (MAX_EVENT_BYTES // 1000 + 1))


def test_bytes_that_are_no_text_are_refused_without_repeating_them() -> None:
    with pytest.raises(SseError, match="not UTF-8") as caught:
        read([b"data: \xff\xfe\n\n"])
    assert "\\xff" not in str(caught.value)
