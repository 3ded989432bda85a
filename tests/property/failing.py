"""Reads that fail at given numbers among all, and what may come of that."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest
from hypothesis import strategies as st

from edge.budget import MemoryPlan
from edge.errors import CancelledError, StorageError
from edge.kernels import ExpertReader
from tests.property.crowd import Alone, Outcome


@dataclass(frozen=True, slots=True)
class Faults:
    """Which reads fail, by their number among all: bursts, for what failed alone is read again with success."""

    first: int
    every: int
    burst: int

    def hit(self, number: int) -> bool:
        return number >= self.first and (number - self.first) % self.every < self.burst


faults = st.builds(
    Faults,
    first=st.integers(0, 200),
    every=st.sampled_from([30, 80, 200, 500]),
    burst=st.sampled_from([1, 3, 20]),
)


@contextmanager
def failing_reads(is_faulty: Callable[[int], bool]) -> Iterator[list[int]]:
    """Reads of experts and of dense weights that end badly, by their number among all; the numbers of those so far."""
    original, failed, count = ExpertReader.wait, list[int](), iter(range(10**9))

    def wait(self: ExpertReader, ticket: int) -> None:
        original(self, ticket)
        number = next(count)
        if is_faulty(number):
            failed.append(number)
            raise StorageError("injected")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExpertReader, "wait", wait)
        yield failed


def streaming(plan: MemoryPlan) -> MemoryPlan:
    """The same plan with most layers, the head and the embedding on disk."""
    return replace(plan, streamed_layers=(0, 1, 3), ring_slots=2, head_streams=True, embedding_on_disk=True)


def assert_reads_excuse(
    outcomes: Mapping[int, Outcome], alone: Sequence[Alone], *, cancelled: Collection[int], failed: Collection[int]
) -> None:
    """Each request got what it gets alone, or the beginning of it: because it was cancelled, or reads failed."""
    for job, outcome in outcomes.items():
        assert outcome.tokens == alone[job].outcome.tokens[: len(outcome.tokens)]
        if outcome.end == CancelledError.__name__:
            assert job in cancelled
        elif outcome.end == StorageError.__name__:
            assert failed
        else:
            assert outcome == alone[job].outcome
