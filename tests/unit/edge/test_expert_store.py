"""The expert store over an in-memory disk: what is read, what is kept, what a failed read leaves behind."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.errors import StorageError
from edge.experts.store import ExpertStore

LAYOUT = ExpertLayout(MatrixLayout(Format.F32, 3, 5), MatrixLayout(Format.F32, 3, 5), MatrixLayout(Format.F32, 5, 3))
NUM_EXPERTS = 8


@dataclass
class Index:
    """A pack of which only the experts are asked for."""

    experts: ExpertLayout = LAYOUT

    def expert_crc(self, layer: int, expert: int) -> int:
        return 100 * layer + expert


class MemoryDisk:
    """A reader whose block of (layer, expert) is full of 10 * layer + expert, written only when waited for."""

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.crcs: list[int | None] = []
        self.broken: set[tuple[int, int]] = set()
        self.refused: set[tuple[int, int]] = set()
        self.open: dict[int, tuple[int, int, NDArray[np.uint8]]] = {}
        self.done: set[tuple[int, int]] = set()
        self.bytes_read = 0
        self.busy_seconds = 0.0
        self.is_closed = False

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None) -> int:
        assert offset % out.nbytes == 0
        assert out.ctypes.data % 4096 == 0
        expert = offset // out.nbytes
        if (file, expert) in self.refused:
            raise OSError("no more requests")
        self.started.append((file, expert))
        self.crcs.append(crc)
        self.open[len(self.started)] = (file, expert, out)
        return len(self.started)

    def wait(self, ticket: int) -> None:
        file, expert, out = self.open.pop(ticket)
        if (file, expert) in self.broken:
            raise StorageError(f"layer {file} expert {expert} is broken")
        out.fill(10 * file + expert)
        self.bytes_read += out.nbytes

    def is_done(self, ticket: int) -> bool:
        return self.open[ticket][:2] in self.done

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def make_store(disk: MemoryDisk, num_slots: int) -> ExpertStore:
    return ExpertStore(Index(), num_slots, disk)


def fetched(store: ExpertStore, layer: int, experts: list[int], *, is_scan: bool = False) -> list[list[int]]:
    """The batches of experts as they came, each block's content checked."""
    batches = []
    with store.fetch(layer, experts, is_scan=is_scan) as fetch:
        for batch in fetch:
            assert all((block == 10 * layer + expert).all() for expert, block in batch)
            batches.append([expert for expert, _ in batch])
    return batches


def test_a_failed_read_is_an_error_of_that_fetch_and_the_next_one_works(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    disk.broken = {(0, 2)}
    with pytest.raises(StorageError, match="layer 0 expert 2 is broken"):
        fetched(store, 0, [1, 2, 3])
    assert not disk.open  # the read of expert 3 was waited for: nothing writes into a slot behind our back
    disk.broken = set()
    assert fetched(store, 0, [1, 2, 3]) == [[1, 3], [2]]
    assert fetched(store, 0, [1, 2, 3]) == [[1, 2, 3]]


def test_a_failed_read_whose_fetch_was_abandoned_leaves_no_wrong_block(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    disk.broken = {(0, 1), (0, 2)}
    with pytest.raises(StorageError, match="expert 1"):
        fetched(store, 0, [1, 2])
    assert store.num_resident == 0


def test_a_read_that_could_not_start_leaves_no_expert_that_passes_for_loaded(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    disk.refused = {(0, 2)}
    with pytest.raises(OSError, match="no more requests"):
        fetched(store, 0, [1, 2])
    disk.refused = set()
    assert fetched(store, 0, [1, 2]) == [[1], [2]]


def test_a_fetch_that_can_get_no_slot_says_so_and_leaves_none_out(disk: MemoryDisk) -> None:
    store = make_store(disk, 1)
    with store.fetch(0, [1], is_scan=False), pytest.raises(RuntimeError, match="all 1 slots are held"):
        fetched(store, 0, [2])


def test_what_is_resident_comes_first_and_together(disk: MemoryDisk) -> None:
    store = make_store(disk, 6)
    fetched(store, 0, [1, 4])
    assert fetched(store, 0, [0, 1, 3, 4]) == [[1, 4], [0], [3]]


def test_reads_that_ended_meanwhile_come_together(disk: MemoryDisk) -> None:
    store = make_store(disk, 6)
    disk.done = {(0, 1), (0, 2)}
    assert fetched(store, 0, [0, 1, 2, 3]) == [[0, 1, 2], [3]]


def test_all_reads_start_before_the_first_block_is_asked_for(disk: MemoryDisk) -> None:
    store = make_store(disk, 6)
    with store.fetch(1, [0, 2, 5], is_scan=False):
        assert disk.started == [(1, 0), (1, 2), (1, 5)]
        assert disk.crcs == [100, 102, 105]


@pytest.mark.parametrize("is_scan", [False, True])
@pytest.mark.parametrize("num_slots", [1, 2, 3])
def test_more_experts_than_slots_pass_through_the_slots(disk: MemoryDisk, num_slots: int, is_scan: bool) -> None:
    store = make_store(disk, num_slots)
    for layer in range(3):
        batches = fetched(store, layer, list(range(NUM_EXPERTS)), is_scan=is_scan)
        assert sorted(expert for batch in batches for expert in batch) == list(range(NUM_EXPERTS))
    assert store.num_resident == num_slots


def test_a_scan_comes_in_rising_order_and_keeps_what_was_in_use(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    fetched(store, 0, [5, 6])
    for layer in (1, 2):
        assert fetched(store, layer, [0, 1, 2, 3], is_scan=True) == [[0], [1], [2], [3]]
    disk.started.clear()
    assert fetched(store, 0, [5, 6]) == [[5, 6]]
    assert not disk.started


def test_counters_count_lookups_hits_and_bytes(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    fetched(store, 0, [1, 2])
    fetched(store, 0, [2, 3])
    stats = store.stats()
    assert (stats.lookups, stats.hits, stats.read_bytes) == (4, 1, 3 * LAYOUT.block_bytes)


def test_close_ends_the_reader(disk: MemoryDisk) -> None:
    make_store(disk, 1).close()
    assert disk.is_closed
