"""Reading experts before a router asked for them, on a guess, into idle time of the disk."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from edge.errors import StorageError
from edge.experts.gate import Gate
from edge.experts.policies import ExpertKey
from edge.experts.slots import ExpertSlots

log = structlog.get_logger()


@dataclass(slots=True)
class LookaheadStats:
    """Counters since the store was made."""

    needed: int = 0  # experts of layers for which there was a guess
    recalled: int = 0  # and those among them that were in it
    reads: int = 0  # begun on a guess
    used: int = 0  # and asked for by their layer
    cancelled: int = 0  # or forgotten before the disk was asked

    @property
    def recall(self) -> float:
        """Share of the experts needed that had been guessed; 0 before the first guess."""
        return self.recalled / self.needed if self.needed else 0.0

    @property
    def wasted(self) -> int:
        """Reads that were done and not asked for by their layer."""
        return self.reads - self.used - self.cancelled


class Lookahead:
    """Guesses for one layer at a time, between the fetches of the store.

    A read on a guess waits until no other read is queued. Once the layer's need is known, a right guess is hastened and
    a wrong one forgotten; one that the disk is at already keeps its slot until it ended: a stray.
    """

    def __init__(self, slots: ExpertSlots, gate: Gate, clock: Callable[[], float] = time.perf_counter) -> None:
        self.stats = LookaheadStats()
        self.gate = gate
        self._slots = slots
        self._clock = clock
        self._last = (-1, 0.0, 0.0)  # layer, moment and busy seconds of the last fetch
        self._layer = -1  # that the guess is for
        self._guess: frozenset[int] = frozenset()
        self._reading: list[ExpertKey] = []  # of the guess, those that were in no slot; each pinned
        self._strays: list[ExpertKey] = []  # each pinned
        self._granted: list[ExpertKey] = []  # wanted by the fetch that begins; each pinned until `hand_over`

    def expect(self, layer: int, experts: Sequence[int]) -> None:
        """`layer` is guessed to need `experts`."""
        self._layer, self._guess = layer, frozenset(experts)
        if not self.gate.is_open:
            return
        cache = self._slots.cache
        room = (cache.num_slots - cache.num_pinned) // 2
        missing = [key for key in (ExpertKey(layer, expert) for expert in experts) if key not in cache]
        for key in missing[:room]:
            self._slots.pin(key, is_prefetch=True)
            self._reading.append(key)
            self.stats.reads += 1

    def settle(self, layer: int, experts: Sequence[int], *, is_scan: bool) -> None:
        """`layer` needs `experts` indeed. What was read of them on a guess stays pinned until `hand_over`."""
        if is_scan:
            self.reclaim()
            return
        self._learn(layer, experts)
        wanted = set(experts)
        held, self._reading, self._strays = self._reading + self._strays, [], []
        for key in held:
            if key.layer == layer and key.expert in wanted:
                self._slots.promote(key)
                self._granted.append(key)
                self.stats.used += 1
            elif self._slots.cancel(key):
                self.stats.cancelled += 1
            elif self._slots.is_loaded(key):
                self._finish(key)
            else:
                self._strays.append(key)

    def was_granted(self, key: ExpertKey) -> bool:
        """Whether the fetch that begins finds `key` because of a guess."""
        return key in self._granted

    def hand_over(self) -> None:
        """The fetch has begun: it holds what it wanted of the guess, or failed to."""
        granted, self._granted = self._granted, []
        for key in granted:
            if self._slots.is_loading(key) and self._slots.cache.num_pins(key) == 1:
                self._strays.append(key)
            else:
                self._slots.unpin(key)

    def reclaim(self) -> bool:
        """Free every slot held on a guess, after the reads into them ended; False if there was none."""
        held, self._reading, self._strays = self._reading + self._strays, [], []
        for key in held:
            if self._slots.cancel(key):
                self.stats.cancelled += 1
            else:
                self._finish(key)
        return bool(held)

    def _finish(self, key: ExpertKey) -> None:
        try:
            self._slots.block(key)
        except StorageError as error:  # nobody's request needed it; whoever does will read it again
            log.warning("expert_prefetch_failed", layer=key.layer, expert=key.expert, reason=str(error))
        else:
            self._slots.unpin(key)

    def _learn(self, layer: int, experts: Sequence[int]) -> None:
        now, busy = self._clock(), self._slots.demand_seconds
        last_layer, last_now, last_busy = self._last
        self._last = (layer, now, busy)
        if layer == last_layer + 1:  # else the time between passes would count, in which nobody may have asked at all
            self.gate.took(now - last_now, busy - last_busy)
        guess = self._guess if layer == self._layer else frozenset()
        missing = sum(ExpertKey(layer, expert) not in self._slots.cache for expert in experts)
        missing += sum(key.layer == layer and key.expert in experts for key in self._reading)
        self.gate.needed(experts, guess, missing)
        if guess:
            self.stats.needed += len(experts)
            self.stats.recalled += sum(expert in guess for expert in experts)
