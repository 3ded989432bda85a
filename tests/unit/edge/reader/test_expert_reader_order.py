"""What is waited for is read first; what nobody needs yet can be hastened or forgotten."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.checkpoint.matrix import aligned_zeros
from edge.errors import StorageError
from edge.kernels import ExpertReader

BLOCK = 3 * 4096
PART = 4096


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[ExpertReader]:
    """Reads one part at a time, and none before `go`; block i of its file is full of i."""
    path = tmp_path / "a"
    path.write_bytes(b"".join(bytes([i]) * BLOCK for i in range(6)))
    with ExpertReader([path], threads=1) as reader:
        reader.tune(0, PART)
        yield reader


def go(reader: ExpertReader) -> None:
    reader.tune(1, PART)


def start(reader: ExpertReader, block: int, out: NDArray[np.uint8], *, is_prefetch: bool = False) -> int:
    return reader.read(0, block * BLOCK, out, None, is_prefetch=is_prefetch)


@pytest.fixture
def out() -> NDArray[np.uint8]:
    """Several reads into the same place show which of them was the last."""
    return aligned_zeros(BLOCK, 4096)


@pytest.mark.parametrize("part_bytes", [0, 100, 4096 + 512])
def test_a_part_that_no_disk_can_read_is_refused(reader: ExpertReader, part_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"part_bytes is not a multiple of 4096"):
        reader.tune(1, part_bytes)


@pytest.mark.parametrize(
    "call", [ExpertReader.promote, ExpertReader.cancel, ExpertReader.abandon, ExpertReader.is_done]
)
def test_a_ticket_that_is_not_open_is_refused(reader: ExpertReader, call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="ticket 5 is not open"):
        call(reader, 5)
    with pytest.raises(ValueError, match="ticket 5 is not open"):
        reader.wait_any([5])


def test_a_demand_overtakes_a_prefetch(reader: ExpertReader, out: NDArray[np.uint8]) -> None:
    early, urgent = start(reader, 1, out, is_prefetch=True), start(reader, 2, out)
    go(reader)
    reader.wait(urgent)
    reader.wait(early)
    assert (out == 1).all()
    counters = reader.counters()
    assert (counters.demand_bytes, counters.prefetch_bytes, counters.bytes_read) == (BLOCK, BLOCK, 2 * BLOCK)
    assert counters.busy_seconds > counters.demand_seconds > 0


def test_a_promoted_prefetch_goes_before_the_others(reader: ExpertReader, out: NDArray[np.uint8]) -> None:
    tickets = [start(reader, block, out, is_prefetch=True) for block in (1, 2, 3)]
    reader.promote(tickets[2])
    reader.promote(tickets[2])
    go(reader)
    reader.wait(tickets[2])
    reader.promote(tickets[1])  # whatever became of it by now
    for ticket in tickets[:2]:
        reader.wait(ticket)
    assert (out < 3).all()
    assert reader.counters().demand_bytes >= BLOCK


@pytest.mark.parametrize("is_prefetch", [True, False])
def test_what_has_not_begun_can_be_cancelled(
    reader: ExpertReader, out: NDArray[np.uint8], *, is_prefetch: bool
) -> None:
    cancelled, kept = start(reader, 1, out, is_prefetch=is_prefetch), start(reader, 2, out)
    assert reader.cancel(cancelled)
    with pytest.raises(ValueError, match="is not open"):
        reader.wait(cancelled)
    go(reader)
    reader.wait(kept)
    assert (out == 2).all()
    assert reader.counters().bytes_read == BLOCK


def test_what_has_ended_cannot_be_cancelled(reader: ExpertReader, out: NDArray[np.uint8]) -> None:
    ticket = start(reader, 1, out, is_prefetch=True)
    go(reader)
    assert reader.wait_any([ticket]) == [ticket]
    assert not reader.cancel(ticket)
    reader.wait(ticket)
    assert (out == 1).all()


def test_an_abandoned_read_that_has_not_begun_ends_at_once(reader: ExpertReader, out: NDArray[np.uint8]) -> None:
    ticket = reader.read(0, BLOCK, out, 12345, is_prefetch=True)  # whose checksum nothing is compared with
    assert reader.abandon(ticket)
    assert reader.is_done(ticket)
    assert not reader.abandon(ticket)
    reader.wait(ticket)
    assert not out.any()
    assert reader.counters().bytes_read == 0


@pytest.mark.parametrize("is_prefetch", [True, False])
def test_of_an_abandoned_read_only_what_has_begun_is_read(
    reader: ExpertReader, out: NDArray[np.uint8], *, is_prefetch: bool
) -> None:
    ticket = start(reader, 1, out, is_prefetch=is_prefetch)
    go(reader)
    while reader.counters().bytes_read < PART:
        pass
    had_rest = reader.abandon(ticket)
    reader.wait(ticket)
    counters = reader.counters()
    assert counters.abandoned_bytes == (counters.bytes_read if had_rest else 0)
    assert had_rest == (counters.bytes_read < BLOCK)


def test_what_has_ended_cannot_be_abandoned(reader: ExpertReader, out: NDArray[np.uint8]) -> None:
    ticket = start(reader, 1, out, is_prefetch=True)
    go(reader)
    assert reader.wait_any([ticket]) == [ticket]
    assert not reader.abandon(ticket)
    reader.wait(ticket)
    assert (out == 1).all()
    assert reader.counters().abandoned_bytes == 0


def test_prefetches_wait_until_the_disk_has_little_to_do(reader: ExpertReader, out: NDArray[np.uint8]) -> None:
    """With a depth of none they never begin; demands do."""
    early, urgent = start(reader, 1, out, is_prefetch=True), start(reader, 2, out)
    reader.tune(4, PART, 0)
    reader.wait(urgent)
    assert reader.counters().prefetch_bytes == 0
    reader.tune(4, PART, 1)
    reader.wait(early)
    assert (out == 1).all()


def test_reads_may_be_abandoned_from_another_thread_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "many"
    path.write_bytes(bytes(BLOCK) * 64)
    outs = aligned_zeros(64 * BLOCK, 4096).reshape(64, BLOCK)
    with ExpertReader([path], threads=4) as reader:
        reader.tune(4, PART, 2)
        tickets = [reader.read(0, i * BLOCK, each, None, is_prefetch=True) for i, each in enumerate(outs)]
        dropping = threading.Thread(target=lambda: [reader.abandon(ticket) for ticket in reversed(tickets)])
        dropping.start()
        for ticket in tickets[1::2]:
            reader.promote(ticket)
        dropping.join()
        for ticket in tickets:
            reader.wait(ticket)
        counters = reader.counters()
    assert counters.abandoned_bytes <= counters.bytes_read <= 64 * BLOCK


def test_closing_with_an_abandoned_read_under_way_lets_it_end(reader: ExpertReader, out: NDArray[np.uint8]) -> None:
    ticket = start(reader, 1, out, is_prefetch=True)
    go(reader)
    reader.abandon(ticket)
    reader.close()
    reader.wait(ticket)


def test_wait_any_returns_what_has_ended_and_leaves_it_to_be_waited_for(
    reader: ExpertReader, out: NDArray[np.uint8]
) -> None:
    first, beyond = start(reader, 1, out), start(reader, 6, out)
    go(reader)
    while sorted(reader.wait_any([first, beyond])) != [first, beyond]:
        pass
    reader.tune(0, PART)
    later = start(reader, 3, out)
    assert sorted(reader.wait_any([later, beyond, first])) == [first, beyond]
    reader.wait(first)
    with pytest.raises(StorageError, match="short read"):
        reader.wait(beyond)
    assert reader.wait_any([]) == []
    assert not reader.is_done(later)
    assert reader.counters().wait_seconds > 0


def test_of_two_waits_for_one_ticket_one_is_told_that_it_is_gone(reader: ExpertReader, out: NDArray[np.uint8]) -> None:
    ticket = start(reader, 1, out)
    outcomes: list[str] = []

    def wait() -> None:
        try:
            reader.wait(ticket)
        except ValueError as error:
            outcomes.append(str(error))
        else:
            outcomes.append("done")

    waiters = [threading.Thread(target=wait) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    go(reader)
    for waiter in waiters:
        waiter.join()
    assert sorted(outcomes) == ["done", f"ticket {ticket} is not open"]


@pytest.mark.parametrize("is_prefetch", [True, False])
def test_closing_wakes_who_waits_for_a_read_that_never_began(
    reader: ExpertReader, out: NDArray[np.uint8], *, is_prefetch: bool
) -> None:
    ticket = start(reader, 1, out, is_prefetch=is_prefetch)
    errors: list[str] = []

    def wait() -> None:
        try:
            reader.wait(ticket)
        except StorageError as error:
            errors.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    reader.close()
    waiter.join()
    assert len(errors) == 1
    assert "dropped: the reader was closed" in errors[0]
