"""Recall by the depth of guesses: of all that was needed, and of what a cache lacks."""

import pytest

from edge.errors import TraceError
from edge.experts.recall import recall
from edge.experts.trace import Access

TRACE = [
    Access(0, 0, (0, 1, 2), True),
    Access(1, 0, (0, 1), False),  # the first layer has no guess
    Access(1, 1, (0, 1), False, (0, 3)),
    Access(2, 0, (0, 1), False),
    Access(2, 1, (0, 2), False, (1, 2)),
]


def test_of_all_that_was_needed() -> None:
    assert recall(TRACE, [1, 2, 3, 4]) == [0.25, 0.5, 0.75, 1.0]


def test_of_what_a_cache_lacks() -> None:
    """With room for all, expert 0 of layer 1 is there the second time."""
    assert recall(TRACE, [1, 2, 3, 4], num_slots=8) == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("trace", [[], TRACE[:2]])
def test_a_trace_without_guesses_is_refused(trace: list[Access]) -> None:
    with pytest.raises(TraceError, match="record a longer trace"):
        recall(trace, [1])
    with pytest.raises(TraceError, match="record a longer trace"):
        recall(trace, [1], num_slots=4)


def test_where_nothing_is_missing_there_is_nothing_to_recall() -> None:
    hits = [Access(step, 1, (0,), False, (0,)) for step in range(3)]
    with pytest.raises(TraceError, match="missing"):
        recall([Access(0, 1, (0,), False), *hits], [1], num_slots=4)
