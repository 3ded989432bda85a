"""Work on several threads whose results come in the order of the work."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")

MOST_THREADS = 8  # each holds memory, and more of them wait for the disk


def num_threads() -> int:
    """Cores that this process may use, to a limit."""
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def in_order(jobs: Iterable[tuple[K, Callable[[], T]]], threads: int) -> Generator[tuple[K, T], None, None]:
    """Each job's key and result. Close it if it is not read to its end.

    No more jobs are under way or finished than `threads` and one more. A job's exception is raised in its turn.
    """
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[tuple[K, Future[T]]] = deque()
        try:
            for key, job in jobs:
                pending.append((key, pool.submit(job)))
                if len(pending) > threads:
                    first, future = pending.popleft()
                    yield first, future.result()
            for first, future in pending:
                yield first, future.result()
        finally:
            for _, future in pending:
                future.cancel()
