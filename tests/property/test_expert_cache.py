"""Invariants of the expert cache under any sequence of operations, and its order of eviction."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edge.experts.cache import SlotCache
from edge.experts.policies import ExpertKey, Lru

keys = st.builds(ExpertKey, st.integers(0, 2), st.integers(0, 3))


class CacheMachine(RuleBasedStateMachine):
    """Runs the cache beside a plain list in order of use."""

    @initialize(num_slots=st.integers(1, 6))
    def start(self, num_slots: int) -> None:
        self.cache = SlotCache(num_slots, Lru(resists_scans=True))
        self.order: list[ExpertKey] = []
        self.slots: dict[ExpertKey, int] = {}
        self.pins: list[ExpertKey] = []

    @rule(key=keys, is_scan=st.booleans())
    def use(self, key: ExpertKey, is_scan: bool) -> None:
        is_there = self.cache.use(key, is_scan=is_scan)
        assert is_there == (key in self.slots)
        if is_there:
            assert self.cache.slot(key) == self.slots[key]
        if not is_there:
            self._admit(key, is_scan)
        elif not is_scan:
            self.order.remove(key)
            self.order.append(key)

    def _admit(self, key: ExpertKey, is_scan: bool) -> None:
        victims = [other for other in self.order if other not in self.pins]
        is_full = len(self.order) == self.cache.num_slots
        slot = self.cache.admit(key, is_scan=is_scan)
        if is_full and not victims:
            assert slot is None
            return
        assert slot is not None
        if is_full:
            self.order.remove(victims[0])
            assert slot == self.slots.pop(victims[0])
        self.order.insert(0 if is_scan else len(self.order), key)
        self.slots[key] = slot

    @precondition(lambda self: bool(self.order))
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.order))
        self.cache.pin(key)
        self.pins.append(key)

    @precondition(lambda self: bool(self.pins))
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.pins))
        self.cache.unpin(key)
        self.pins.remove(key)

    @precondition(lambda self: bool(set(self.order) - set(self.pins)))
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(set(self.order) - set(self.pins))))
        self.cache.drop(key)
        self.order.remove(key)
        del self.slots[key]

    @invariant()
    def no_two_experts_share_a_slot(self) -> None:
        taken = list(self.slots.values())
        assert len(set(taken)) == len(taken) == len(self.cache) <= self.cache.num_slots
        assert all(0 <= slot < self.cache.num_slots for slot in taken)

    @invariant()
    def a_pinned_expert_stays(self) -> None:
        assert all(key in self.cache for key in self.pins)


CacheMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCacheMachine = CacheMachine.TestCase


def test_a_cache_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="0 slots"):
        SlotCache(0, Lru(resists_scans=True))


def test_a_scan_passes_through_without_evicting_what_was_in_use() -> None:
    cache = SlotCache(4, Lru(resists_scans=True))
    hot = [ExpertKey(0, expert) for expert in range(3)]
    for key in hot:
        cache.admit(key)
    for expert in range(10, 40):
        assert cache.admit(ExpertKey(1, expert), is_scan=True) is not None
    assert all(key in cache for key in hot)
