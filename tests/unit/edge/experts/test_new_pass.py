"""The MTP layer begins a pass and has the highest number: the time before it is no layer's."""

import pytest

from edge.experts.gate import Gates
from edge.experts.lookahead import Lookahead
from edge.experts.policies import Lru
from edge.experts.slots import ExpertSlots
from edge.experts.store import SETTLED_FETCHES, ExpertStore
from tests.unit.edge.experts.memory_disk import Index, MemoryDisk

NUM_LAYERS = 3


def test_idleness_between_passes_is_not_put_down_to_a_layer_that_follows_the_last_one() -> None:
    now = 0.0
    disk, gates = MemoryDisk(), Gates()
    lookahead = Lookahead(ExpertSlots(Index(), 12, disk, Lru(resists_scans=True), "off"), gates, lambda: now)
    for _ in range(5):
        lookahead.new_pass()
        for layer in (NUM_LAYERS, *range(NUM_LAYERS)):
            lookahead.settle(layer, [1], is_scan=False)
            now += 1.0
            disk.demand_seconds += 0.75
        now += 1000.0
    assert gates.decode.idle.value == pytest.approx(0.25)


@pytest.mark.parametrize("gates", [None, Gates()])
def test_a_store_takes_the_word_of_it_whether_it_guesses_or_not(gates: Gates | None) -> None:
    store = ExpertStore(Index(), 4, MemoryDisk(), Lru(resists_scans=True), gates=gates)
    store.new_pass()
    with store.fetch(1, [2], is_scan=False) as batches:
        assert [expert for batch in batches for expert, _ in batch] == [2]


def test_what_is_never_asked_for_is_not_guessed_for_ever() -> None:
    store = ExpertStore(Index(), 8, MemoryDisk(), Lru(resists_scans=True), gates=Gates(), holds_all=True)
    wanted = []
    for _ in range(SETTLED_FETCHES + 1):
        with store.fetch(1, [2], is_scan=False) as batches:
            list(batches)
        wanted.append(store.wants_guesses(is_scan=False))
    assert wanted == [True] * SETTLED_FETCHES + [False]
    with store.fetch(1, [3], is_scan=False) as batches:
        list(batches)
    assert store.wants_guesses(is_scan=False)
