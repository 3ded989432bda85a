"""Work on several threads: its results in order, its failures in their turn, no more of it ahead than was said."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import pytest

from edge.checkpoint.in_order import in_order, num_threads


def test_results_come_in_the_order_of_the_jobs_whichever_is_done_first() -> None:
    second_done = threading.Event()

    def first() -> str:
        assert second_done.wait(10)
        return "first"

    def second() -> str:
        second_done.set()
        return "second"

    assert list(in_order([(1, first), (2, second)], 2)) == [(1, "first"), (2, "second")]


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_jobs_are_started_than_threads_and_one(threads: int) -> None:
    started: list[int] = []

    def jobs() -> Iterator[tuple[int, Callable[[], int]]]:
        for index in range(50):
            started.append(index)
            yield index, partial(int, index)

    for taken, (key, result) in enumerate(in_order(jobs(), threads)):
        assert key == result == taken
        assert len(started) <= taken + threads + 1


def test_a_failure_is_raised_in_its_turn_and_the_rest_is_dropped() -> None:
    def fail() -> int:
        raise OSError("no more disk")

    jobs: list[tuple[int, Callable[[], int]]] = [(0, lambda: 0), (1, fail), *((n, lambda: 2) for n in range(2, 50))]
    results = in_order(jobs, 4)
    assert next(results) == (0, 0)
    with pytest.raises(OSError, match="no more disk"):
        next(results)


def test_whoever_stops_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with closing(in_order(((n, lambda: 0) for n in range(1000)), 3)) as results:
        next(results)
    assert threading.active_count() == before


def test_there_is_at_least_one_thread() -> None:
    assert 1 <= num_threads() <= 8
