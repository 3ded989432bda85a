"""The expert store over an in-memory disk: what is read, what is kept, what a failed read leaves behind."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.errors import StorageError
from edge.experts.gate import Gates
from edge.experts.policies import DecayedLfu, Lru
from edge.experts.slots import Verify
from edge.experts.store import ExpertStore
from edge.kernels import ExpertReader, crc32c
from tests.unit.edge.experts.memory_disk import LAYOUT, Index, MemoryDisk

NUM_EXPERTS = 8


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def make_store(disk: MemoryDisk, num_slots: int, verify: Verify = "always") -> ExpertStore:
    return ExpertStore(Index(), num_slots, disk, Lru(resists_scans=True), verify=verify)


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


def test_reads_that_ended_come_first_and_together(disk: MemoryDisk) -> None:
    store = make_store(disk, 6)
    disk.done = {(0, 1), (0, 2)}
    assert fetched(store, 0, [0, 1, 2, 3]) == [[1, 2], [0], [3]]


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


@pytest.mark.parametrize("is_scan", [False, True])
def test_a_store_that_holds_all_asks_its_policy_nothing_once_they_are_there(disk: MemoryDisk, is_scan: bool) -> None:
    store = ExpertStore(Index(), NUM_EXPERTS, disk, Lru(resists_scans=True), gates=Gates(), holds_all=True)
    assert fetched(store, 0, [1, 4, 6]) == [[1], [4], [6]]
    assert fetched(store, 0, [1, 5, 6]) == [[1, 6], [5]]
    expected = [[1], [4], [5]] if is_scan else [[1, 4, 5]]
    assert fetched(store, 0, [1, 4, 5], is_scan=is_scan) == expected
    assert len(disk.started) == 4
    assert (store.stats().lookups, store.stats().hits) == (9, 5)


def test_a_store_that_holds_all_does_not_hand_over_what_is_being_read(disk: MemoryDisk) -> None:
    store = ExpertStore(Index(), NUM_EXPERTS, disk, Lru(resists_scans=True), gates=Gates(), holds_all=True)
    with store.fetch(0, [1, 2], is_scan=False):
        store.expect(1, [3])
        store.expect(1, [3])
    disk.broken = {(1, 3)}
    with pytest.raises(StorageError, match="expert 3"):
        fetched(store, 1, [3])
    disk.broken = set()
    assert fetched(store, 1, [3]) == [[3]]


def test_a_store_that_holds_all_wants_no_guesses_once_all_are_there(disk: MemoryDisk) -> None:
    store = ExpertStore(Index(), 3, disk, Lru(resists_scans=True), gates=Gates(), holds_all=True)
    fetched(store, 0, [1, 2])
    assert store.wants_guesses(is_scan=False)
    fetched(store, 1, [0])
    assert not store.wants_guesses(is_scan=False)


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


def test_a_recorder_of_guesses_is_told_of_every_one_and_nothing_is_read_for_it(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    assert not store.wants_guesses(is_scan=False)
    told = []
    store.guess_recorder = lambda layer, scores: told.append((layer, scores.tolist()))
    assert store.wants_guesses(is_scan=False)
    assert not store.wants_guesses(is_scan=True)
    store.expect(1, [2], np.array([[1.0, 2.0]], np.float32))
    assert told == [(1, [[1.0, 2.0]])]
    assert not disk.prefetched


def test_what_is_spared_is_not_read_but_remembered_as_wanted(disk: MemoryDisk) -> None:
    store = ExpertStore(Index(), 2, disk, DecayedLfu(100.0))
    for _ in range(3):
        with store.fetch(0, [1], is_scan=False, spared=[2]) as fetch:
            list(fetch)
    fetched(store, 0, [3])  # used once; 2 was wanted three times
    fetched(store, 0, [2])
    assert disk.started == [(0, 1), (0, 3), (0, 2)]
    assert (store.holds(0, 1), store.holds(0, 2), store.holds(0, 3)) == (True, True, False)
    assert store.stats().lookups == 5


def test_a_recorder_is_told_of_every_fetch(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    told: list[tuple[int, list[int], bool]] = []
    store.recorder = lambda layer, experts, is_scan: told.append((layer, list(experts), is_scan))
    fetched(store, 1, [2, 3])
    fetched(store, 2, [0], is_scan=True)
    assert told == [(1, [2, 3], False), (2, [0], True)]


@pytest.mark.parametrize(
    ("verify", "expected"), [("always", [1, 2, 1]), ("first", [1, 2, None]), ("off", [None, None, None])]
)
def test_checksums_are_compared_as_asked(disk: MemoryDisk, verify: Verify, expected: list[int | None]) -> None:
    store = make_store(disk, 1, verify)
    for expert in (1, 2, 1):
        fetched(store, 0, [expert])
    assert disk.crcs == expected


def test_a_block_whose_first_read_failed_is_checked_again(disk: MemoryDisk) -> None:
    store = make_store(disk, 1, "first")
    disk.broken = {(0, 1)}
    with pytest.raises(StorageError):
        fetched(store, 0, [1])
    disk.broken = set()
    for expert in (1, 2, 1):
        fetched(store, 0, [expert])
    assert disk.crcs == [1, 1, 2, None]


def test_close_ends_the_reader(disk: MemoryDisk) -> None:
    make_store(disk, 1).close()
    assert disk.is_closed


class FileIndex:
    """One file of experts, of several parts each, as the real reader reads them."""

    experts = ExpertLayout(
        MatrixLayout(Format.F32, 30, 5000), MatrixLayout(Format.F32, 30, 5000), MatrixLayout(Format.F32, 5000, 30)
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        blocks = [bytes([expert]) * self.experts.block_bytes for expert in range(NUM_EXPERTS)]
        path.write_bytes(b"".join(blocks))
        self._crcs = [crc32c(block) for block in blocks]

    def expert_crc(self, layer: int, expert: int) -> int:
        return self._crcs[expert]

    def alter(self, expert: int) -> None:
        with self.path.open("r+b") as file:
            file.seek((expert + 1) * self.experts.block_bytes - 1)
            file.write(b"x")


@pytest.fixture
def index(tmp_path: Path) -> FileIndex:
    return FileIndex(tmp_path / "experts")


def open_store(index: FileIndex, num_slots: int, verify: Verify = "always") -> ExpertStore:
    return ExpertStore(index, num_slots, ExpertReader([index.path], threads=4), Lru(resists_scans=True), verify=verify)


@pytest.fixture
def store(index: FileIndex) -> Iterator[ExpertStore]:
    store = open_store(index, 3)
    yield store
    store.close()


def sums(store: ExpertStore, experts: list[int], *, is_scan: bool = False) -> dict[int, set[int]]:
    """What stood in the blocks."""
    with store.fetch(0, experts, is_scan=is_scan) as fetch:
        return {expert: set(np.unique(block)) for batch in fetch for expert, block in batch}


@pytest.mark.parametrize("is_scan", [False, True])
def test_real_reads_bring_every_block_through_few_slots(store: ExpertStore, is_scan: bool) -> None:
    for _ in range(3):
        found = sums(store, list(range(NUM_EXPERTS)), is_scan=is_scan)
        assert found == {expert: {expert} for expert in range(NUM_EXPERTS)}


@pytest.mark.parametrize("verify", get_args(Verify))
def test_a_file_cut_off_while_running_is_an_error_in_every_mode(index: FileIndex, verify: Verify) -> None:
    store = open_store(index, 1, verify)
    try:
        assert sums(store, [6]) == {6: {6}}
        assert sums(store, [5]) == {5: {5}}
        with index.path.open("r+b") as file:
            file.truncate(6 * index.experts.block_bytes + 4096)
        with pytest.raises(StorageError, match="short read"):
            sums(store, [6])
        assert sums(store, [5]) == {5: {5}}
    finally:
        store.close()


@pytest.mark.parametrize(("verify", "is_found"), [("always", True), ("first", False), ("off", False)])
def test_a_block_altered_after_its_first_read_is_found_by_always(
    index: FileIndex, verify: Verify, is_found: bool
) -> None:
    store = open_store(index, 1, verify)
    try:
        sums(store, [6])
        sums(store, [5])
        index.alter(6)
        if is_found:
            with pytest.raises(StorageError, match="altered data"):
                sums(store, [6])
        else:
            assert sums(store, [6]) == {6: {6, ord("x")}}
    finally:
        store.close()


def test_a_block_altered_before_its_first_read_is_found_by_first(index: FileIndex) -> None:
    index.alter(3)
    store = open_store(index, 2, "first")
    try:
        for _ in range(2):
            with pytest.raises(StorageError, match="altered data"):
                sums(store, [1, 3])
        assert sums(store, [1]) == {1: {1}}
    finally:
        store.close()


def test_closing_wakes_a_fetch_with_an_error(index: FileIndex) -> None:
    reader = ExpertReader([index.path], threads=1)
    reader.tune(0, 4096)  # its reads never begin
    store = ExpertStore(index, 3, reader, Lru(resists_scans=True))
    errors: list[StorageError] = []

    def fetch() -> None:
        try:
            sums(store, [1, 2])
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    while not store.num_resident:
        pass
    store.close()
    thread.join()
    assert len(errors) == 1


class LeftError(Exception):
    """Whoever asked for experts went away."""


def leave(store: ExpertStore) -> None:
    with store.fetch(0, list(range(NUM_EXPERTS)), is_scan=False) as fetch:
        next(fetch)
        raise LeftError


def test_a_fetch_left_in_the_middle_leaves_all_slots_free(store: ExpertStore) -> None:
    for _ in range(3):
        with pytest.raises(LeftError):
            leave(store)
    assert sums(store, [7, 0, 2]) == {7: {7}, 0: {0}, 2: {2}}
