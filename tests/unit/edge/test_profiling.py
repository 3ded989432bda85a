"""The stopwatch counts each moment once, under the innermost span."""

import itertools
from collections.abc import Callable

import pytest

from edge.profiling import ATTENTION, DISK_WAIT, EXPERTS, KINDS, OTHER, UNTIMED, Stopwatch, Watch, each


def ticking() -> Callable[[], float]:
    """A clock that is one second later at every look."""
    return itertools.count().__next__


@pytest.mark.parametrize("watch", [UNTIMED, Stopwatch()])
def test_an_unknown_kind_is_refused(watch: Watch) -> None:
    with pytest.raises(ValueError, match="'coffee' is no kind of work; known: disk_wait, experts"):
        watch.span("coffee")


def test_a_span_inside_another_stops_the_outer_clock() -> None:
    watch = Stopwatch(ticking())  # looks at 0
    with watch.span(EXPERTS), watch.span(DISK_WAIT):  # 1, 2
        pass  # 3, 4
    seconds = watch.take()  # 5
    assert {kind: s for kind, s in seconds.items() if s} == {OTHER: 2, EXPERTS: 2, DISK_WAIT: 1}
    assert sum(seconds.values()) == 5


def test_a_span_is_entered_again_and_again() -> None:
    watch = Stopwatch(ticking())
    span = watch.span(ATTENTION)
    for _ in range(3):
        with span:
            pass
    assert watch.take()[ATTENTION] == 3


def test_a_span_ends_with_an_error_too() -> None:
    watch = Stopwatch(ticking())
    with pytest.raises(KeyError), watch.span(EXPERTS):
        raise KeyError
    assert watch.take()[EXPERTS] == 1
    assert watch.take()[EXPERTS] == 0


def test_taking_inside_a_span_counts_what_has_passed_of_it() -> None:
    watch = Stopwatch(ticking())
    with watch.span(EXPERTS):
        first = watch.take()
    second = watch.take()
    assert (first[EXPERTS], second[EXPERTS]) == (1, 1)


def test_every_kind_is_always_there() -> None:
    assert tuple(Stopwatch(ticking()).take()) == KINDS


def test_getting_an_item_is_timed_and_using_it_is_not() -> None:
    watch = Stopwatch(ticking())
    items = []
    for item in each(iter("ab"), watch.span(DISK_WAIT)):
        items.append(item)
        watch.begin(EXPERTS)
        watch.end()
    seconds = watch.take()
    assert items == ["a", "b"]
    assert (seconds[DISK_WAIT], seconds[EXPERTS]) == (3, 2)  # the third time is to learn that there is none
