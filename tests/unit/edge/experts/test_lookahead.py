"""Guesses: read only when it pays, handed over when right, forgotten when wrong, never an error of their own."""

import pytest

from edge.errors import StorageError
from edge.experts.gate import LEAST_PRECISION, PLACES, Gate, Gates, place
from edge.experts.lookahead import MOST_SCAN_GUESSES, Lookahead
from edge.experts.policies import Lru
from edge.experts.slots import ExpertSlots
from edge.experts.store import ExpertStore
from tests.unit.edge.experts.memory_disk import Index, MemoryDisk


@pytest.fixture
def disk() -> MemoryDisk:
    return MemoryDisk()


def make_store(disk: MemoryDisk, num_slots: int, *, is_open: bool = True) -> ExpertStore:
    return ExpertStore(Index(), num_slots, disk, Lru(resists_scans=True), gates=Gates(Gate(is_open), Gate(is_open)))


@pytest.fixture
def store(disk: MemoryDisk) -> ExpertStore:
    return make_store(disk, 12)


def fetched(store: ExpertStore, layer: int, experts: list[int], *, is_scan: bool = False) -> list[list[int]]:
    batches = []
    with store.fetch(layer, experts, is_scan=is_scan) as fetch:
        for batch in fetch:
            assert all((block == 10 * layer + expert).all() for expert, block in batch)
            batches.append([expert for expert, _ in batch])
    return batches


def test_a_store_without_a_gate_takes_no_guesses(disk: MemoryDisk) -> None:
    store = ExpertStore(Index(), 8, disk, Lru(resists_scans=True))
    assert not store.wants_guesses(is_scan=False)
    assert not store.wants_guesses(is_scan=True)
    store.expect(1, [1, 2])
    assert fetched(store, 1, [1, 2]) == [[1], [2]]
    assert not disk.prefetched


def test_a_closed_gate_counts_guesses_without_reading(disk: MemoryDisk) -> None:
    store = make_store(disk, 8, is_open=False)
    store.expect(1, [1, 2, 3])
    fetched(store, 1, [2, 3, 4, 5])
    assert not disk.prefetched
    stats = store.stats().lookahead
    assert (stats.needed, stats.recalled, stats.recall, stats.reads) == (4, 2, 0.5, 0)


def test_a_right_guess_is_hastened_and_read_once(store: ExpertStore, disk: MemoryDisk) -> None:
    fetched(store, 1, [1])
    disk.started.clear()
    store.expect(1, [1, 2, 3])
    assert disk.prefetched == [(1, 2), (1, 3)]
    disk.done = {(1, 2)}
    assert fetched(store, 1, [1, 2, 3, 4]) == [[2, 1], [3], [4]]
    assert disk.started == [(1, 4)]
    assert (1, 3) in disk.promoted
    stats = store.stats()
    assert (stats.lookups, stats.hits) == (5, 1)  # what a guess brought is no hit
    assert (stats.lookahead.used, stats.lookahead.wasted) == (2, 0)


def test_a_guess_of_what_is_then_done_without_was_right(disk: MemoryDisk) -> None:
    """Else it would not be read the next time either, and never be there."""
    store = make_store(disk, 12, is_open=False)
    gate = store._lookahead.gates.decode  # type: ignore[union-attr] # made with gates
    for _ in range(50):
        store.expect(1, [2])
        with store.fetch(1, [5], is_scan=False, spared=[2]) as fetch:
            list(fetch)
    assert not disk.prefetched
    assert gate.precision[0].value == 1.0
    assert gate.missing.value == pytest.approx(0.5, abs=0.02)
    stats = store.stats().lookahead
    assert (stats.needed, stats.recalled) == (100, 50)


def test_what_is_still_being_read_is_not_held_yet(store: ExpertStore, disk: MemoryDisk) -> None:
    assert not store.holds(1, 2)
    store.expect(1, [2, 3])
    assert not store.holds(1, 2)
    disk.done = {(1, 2)}
    assert store.holds(1, 2)
    assert not store.holds(1, 3)
    fetched(store, 1, [2, 3])
    assert store.holds(1, 3)


def test_a_wrong_guess_that_has_not_begun_is_forgotten(store: ExpertStore, disk: MemoryDisk) -> None:
    store.expect(1, [1, 2])
    assert fetched(store, 1, [3]) == [[3]]
    assert disk.cancelled == [(1, 1), (1, 2)]
    assert store.num_resident == 1
    assert store.stats().lookahead.wasted == 0


def test_a_wrong_guess_that_has_begun_is_dropped_where_it_is(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    disk.begun = {(1, 1), (1, 2)}
    store.expect(1, [1, 2])
    assert fetched(store, 1, [3]) == [[3]]
    assert disk.abandoned == [(1, 1), (1, 2)]
    assert [read.place for read in disk.open.values()] == disk.abandoned  # a part of each is still under way
    assert store.num_resident == 1
    stats = store.stats()
    assert (stats.lookahead.abandoned, stats.lookahead.wasted) == (2, 0)
    assert sorted(e for batch in fetched(store, 1, [1, 2, 4, 5]) for e in batch) == [1, 2, 4, 5]  # read again
    assert not disk.open
    assert store.stats().wasted_bytes == 2 * (store.layout.block_bytes // 2)  # of each a half


def test_a_slot_of_a_dropped_guess_is_free_once_its_read_ended(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    disk.begun = {(1, 1)}
    store.expect(1, [1])
    fetched(store, 1, [3])
    assert disk.open
    disk.done = {(1, 1)}
    fetched(store, 2, [0])
    assert not disk.open


def test_a_wrong_guess_all_of_which_has_begun_keeps_its_slot_until_it_ended(
    store: ExpertStore, disk: MemoryDisk
) -> None:
    disk.all_begun = {(1, 1), (1, 2)}
    store.expect(1, [1, 2])
    disk.done = {(1, 2)}
    assert fetched(store, 1, [3]) == [[3]]
    assert [read.place for read in disk.open.values()] == [(1, 1)]
    assert fetched(store, 2, [0]) == [[0]]
    disk.done = {(1, 1)}
    assert fetched(store, 3, [0]) == [[0]]
    assert not disk.open
    assert store.stats().lookahead.wasted == 2
    assert fetched(store, 1, [1, 2]) == [[1, 2]]  # both are there all the same


def test_a_stray_that_is_needed_after_all_is_read_once(store: ExpertStore, disk: MemoryDisk) -> None:
    disk.all_begun = {(1, 1)}
    store.expect(1, [1])
    fetched(store, 1, [3])
    disk.started.clear()
    assert fetched(store, 1, [1, 3]) == [[3], [1]]
    assert not disk.started


@pytest.mark.parametrize("begun", ["begun", "all_begun", "none"])
def test_guesses_give_their_slots_back_where_these_are_short(disk: MemoryDisk, begun: str) -> None:
    store = make_store(disk, 4)
    setattr(disk, begun, {(1, expert) for expert in range(8)})
    with store.fetch(0, [0, 1, 2, 3, 4, 5], is_scan=False) as fetch:
        next(fetch)
        store.expect(1, [0, 1, 2, 3])
        assert sorted(expert for batch in fetch for expert, _ in batch) == [1, 2, 3, 4, 5]
    store.expect(1, [0, 1, 2, 3])
    assert sorted(expert for batch in fetched(store, 1, [2, 4, 5, 6, 7]) for expert in batch) == [2, 4, 5, 6, 7]


@pytest.mark.parametrize("num_slots", [1, 2, 3])
def test_few_slots_and_many_guesses_never_block(disk: MemoryDisk, num_slots: int) -> None:
    store = make_store(disk, num_slots)
    disk.begun = {(layer, expert) for layer in range(6) for expert in range(0, 8, 2)}
    disk.all_begun = {(layer, expert) for layer in range(6) for expert in range(0, 8, 3)}
    for layer in range(5):
        with store.fetch(layer, list(range(6)), is_scan=layer == 2) as fetch:
            store.expect(layer + 1, list(range(2, 8)))
            assert sorted(expert for batch in fetch for expert, _ in batch) == list(range(6))


def test_a_failed_guess_that_nobody_needs_is_no_error(store: ExpertStore, disk: MemoryDisk) -> None:
    disk.begun = disk.broken = disk.done = {(1, 1)}
    store.expect(1, [1])
    assert fetched(store, 1, [3]) == [[3]]
    disk.broken = set()
    assert fetched(store, 1, [1]) == [[1]]  # read again


def test_a_failed_guess_that_is_needed_is_an_error(store: ExpertStore, disk: MemoryDisk) -> None:
    disk.broken = {(1, 1)}
    store.expect(1, [1, 2])
    with pytest.raises(StorageError, match="layer 1 expert 1 is broken"):
        fetched(store, 1, [1, 2])
    disk.broken = set()
    assert fetched(store, 1, [1, 2]) == [[2], [1]]


def test_a_fetch_that_cannot_begin_leaves_no_slot_behind(disk: MemoryDisk) -> None:
    store = make_store(disk, 4)
    store.expect(1, [1])
    disk.refused = {(1, 2)}
    with pytest.raises(OSError, match="no more requests"):
        fetched(store, 1, [1, 2])
    assert sorted(e for batch in fetched(store, 2, [0, 1, 2, 3]) for e in batch) == [0, 1, 2, 3]
    assert not disk.open


def test_the_surest_guess_is_read_first(store: ExpertStore, disk: MemoryDisk) -> None:
    store.expect(1, [5, 2, 7])
    assert disk.prefetched == [(1, 5), (1, 2), (1, 7)]


def test_guesses_whose_like_came_wrong_are_not_read(disk: MemoryDisk) -> None:
    gate = Gate(is_open=True)
    for rank in range(PLACES // 2, PLACES):
        gate.guessed(rank, is_right=False)
    store = ExpertStore(Index(), 40, disk, Lru(resists_scans=True), gates=Gates(gate))
    store.expect(1, list(range(PLACES)))
    assert disk.prefetched == [(1, expert) for expert in range(PLACES // 2)]


def test_a_guess_waits_until_a_prompt_has_asked_for_all_that_its_layer_needs(disk: MemoryDisk) -> None:
    store = make_store(disk, 60)
    with store.fetch(0, list(range(40)), is_scan=True) as fetch:
        store.expect(1, [3, 1, 2])
        while len(disk.started) < 40:
            assert not disk.prefetched
            next(fetch)
        assert disk.prefetched == [(1, 1), (1, 2), (1, 3)]  # in the order in which they will be computed
        list(fetch)


def test_a_prompt_finds_what_was_guessed_and_goes_in_rising_order(store: ExpertStore, disk: MemoryDisk) -> None:
    with store.fetch(0, [0], is_scan=True) as fetch:
        store.expect(1, [4, 2, 9])
        list(fetch)
    disk.started.clear()
    assert fetched(store, 1, [1, 2, 3, 4], is_scan=True) == [[1], [2], [3], [4]]
    assert disk.started == [(1, 1), (1, 3)]
    assert disk.cancelled == [(1, 9)]


def test_a_prompt_takes_no_more_slots_for_guesses_than_it_computes_on_meanwhile(disk: MemoryDisk) -> None:
    store = make_store(disk, 4 * MOST_SCAN_GUESSES)
    with store.fetch(0, [0], is_scan=True) as fetch:
        store.expect(1, list(range(2 * MOST_SCAN_GUESSES)))
        list(fetch)
    assert len(disk.prefetched) == MOST_SCAN_GUESSES


def test_a_prompt_left_half_way_gives_up_what_was_guessed_for_it(store: ExpertStore, disk: MemoryDisk) -> None:
    disk.begun = {(1, 1)}
    with store.fetch(0, [0], is_scan=True) as fetch:
        store.expect(1, [1, 2])
        list(fetch)
    assert fetched(store, 0, [5]) == [[5]]
    assert (disk.abandoned, disk.cancelled) == ([(1, 1)], [(1, 2)])


def test_closing_with_guesses_under_way_leaves_nobody_waiting(store: ExpertStore, disk: MemoryDisk) -> None:
    disk.begun = {(1, 1)}
    store.expect(1, [1, 2])
    store.close()
    assert disk.is_closed


def needing(gate: Gate, *, missing: int = 5, idle: float = 0.5) -> Gate:
    for _ in range(1000):
        gate.needed(10, missing)
        gate.took(1.0, 1.0 - idle)
    return gate


def test_the_gate_opens_where_the_disk_idles_and_experts_are_missing() -> None:
    assert needing(Gate()).is_open


@pytest.mark.parametrize("fault", [{"idle": 0.02}, {"missing": 0}])
def test_the_gate_closes_when_one_of_its_reasons_is_gone(fault: dict[str, float]) -> None:
    gate = needing(Gate())
    needing(gate, **fault)  # type: ignore[arg-type]
    assert not gate.is_open
    assert needing(gate).is_open


def test_the_gate_does_not_toggle_at_its_border() -> None:
    gate = needing(Gate(), idle=0.07)
    assert not gate.is_open
    needing(gate, idle=0.5)
    assert needing(gate, idle=0.07).is_open


def test_each_place_in_a_guess_has_a_precision_of_its_own() -> None:
    gate = Gate(is_open=True)
    assert all(gate.admits(rank) for rank in range(PLACES))  # so that it is found out
    for number in range(100):
        gate.guessed(0, is_right=number % 10 > 0)
        gate.guessed(1, is_right=number % 10 == 0)
    assert gate.precision[0].value > LEAST_PRECISION > gate.precision[1].value
    assert [gate.admits(rank) for rank in (0, 1, 2)] == [True, False, True]


@pytest.mark.parametrize(("count", "last"), [(1, 0), (4, 7), (10, 9), (35, 9), (512, 9)])
def test_the_surest_of_a_guess_is_at_the_first_place(count: int, last: int) -> None:
    places = [place(rank, count) for rank in range(count)]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, last)


def test_idleness_is_measured_within_a_pass() -> None:
    """Between two requests the disk idles for any time: that says nothing about decoding."""
    now = 0.0
    disk, gates = MemoryDisk(), Gates()
    lookahead = Lookahead(ExpertSlots(Index(), 12, disk, Lru(resists_scans=True), "off"), gates, lambda: now)
    for _ in range(5):
        for layer in range(3):
            lookahead.settle(layer, [1], is_scan=False)
            now += 1.0
            disk.demand_seconds += 0.75
        now += 1000.0
    assert gates.decode.idle.value == pytest.approx(0.25)
    assert gates.scan.idle.whole == 0
