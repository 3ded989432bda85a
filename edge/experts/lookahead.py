"""Reading experts before a router asked for them, on a guess, into idle time of the disk."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from edge.errors import StorageError
from edge.experts.gate import Gates, place
from edge.experts.policies import ExpertKey
from edge.experts.slots import ExpertSlots

log = structlog.get_logger()

# Slots that a scan may fill for its next layer: what the disk reads while the token mixers of some hundred tokens
# compute, and no more of what decoding uses than that.
MOST_SCAN_GUESSES = 96
NO_FETCH = (-2, 0.0, 0.0)  # of a layer that none follows


@dataclass(slots=True)
class LookaheadStats:
    """Counters since the store was made."""

    needed: int = 0  # experts of layers for which there was a guess
    recalled: int = 0  # and those among them that were in it
    reads: int = 0  # begun on a guess
    used: int = 0  # and asked for by their layer
    cancelled: int = 0  # or forgotten before the disk was asked
    abandoned: int = 0  # or dropped when the disk had been asked for a part

    @property
    def recall(self) -> float:
        """Share of the experts needed that had been guessed; 0 before the first guess."""
        return self.recalled / self.needed if self.needed else 0.0

    @property
    def wasted(self) -> int:
        """Reads that were done to their end and not asked for by their layer."""
        return self.reads - self.used - self.cancelled - self.abandoned


class Lookahead:
    """Guesses for one layer at a time, between the fetches of the store.

    A read on a guess waits until no other read is queued. Once the layer's need is known, a right guess is hastened and
    a wrong one dropped as far as it has not begun; one that all has begun of keeps its slot until it ended: a stray.
    """

    def __init__(self, slots: ExpertSlots, gates: Gates, clock: Callable[[], float] = time.perf_counter) -> None:
        self.stats = LookaheadStats()
        self.gates = gates
        self._slots = slots
        self._clock = clock
        self._is_scan = False  # of the pass that is going on
        self._last = NO_FETCH  # layer, moment and busy seconds of the last one
        self._layer = -1  # that the guess is for
        self._guess: frozenset[int] = frozenset()
        self._absent: dict[int, int] = {}  # of the guess, those that were in no slot, and their places in it
        self._pending: list[ExpertKey] = []  # of these, those to be read
        self._reading: list[ExpertKey] = []  # and those whose reads were queued; each pinned
        self._strays: list[ExpertKey] = []  # each pinned
        self._granted: list[ExpertKey] = []  # wanted by the fetch that begins; each pinned until `hand_over`

    def expect(self, layer: int, experts: Sequence[int]) -> None:
        """`layer` is guessed to need `experts`, the surest first."""
        self._layer, self._guess = layer, frozenset(experts)
        keys = [ExpertKey(layer, expert) for expert in experts]
        self._absent = {
            key.expert: place(rank, len(keys)) for rank, key in enumerate(keys) if key not in self._slots.cache
        }
        admits = self.gates.of(is_scan=self._is_scan).admits
        self._pending = [ExpertKey(layer, expert) for expert, place in self._absent.items() if admits(place)]

    def begin(self) -> None:
        """Queue the reads of what is expected: whatever the layer before it needs has been asked for."""
        pending, self._pending = self._pending, []
        cache = self._slots.cache
        room = (cache.num_slots - cache.num_held) // 2
        if self._is_scan:  # which goes through them in rising order
            pending = sorted(pending[: min(room, MOST_SCAN_GUESSES)])
        for key in pending[:room]:
            self._slots.pin(key, is_prefetch=True)
            self._reading.append(key)
            self.stats.reads += 1

    def new_pass(self) -> None:
        """The MTP layer comes first in a pass and behind all others in number: no layer follows the one before it."""
        self._last = NO_FETCH

    def settle(
        self, layer: int, experts: Sequence[int], *, is_scan: bool, spared: Sequence[int] = ()
    ) -> list[ExpertKey]:
        """`layer` needs `experts` indeed. What was read of them on a guess, which stays pinned until `hand_over`.

        `spared`: what it would have needed, too, and does without because it is not there.
        """
        self._is_scan = is_scan
        self._learn(layer, experts, spared)
        self._slots.sweep()
        wanted = set(experts)
        held, self._reading, self._strays = self._reading + self._strays, [], []
        for key in held:
            if key.layer == layer and key.expert in wanted:
                self._slots.promote(key)
                self._granted.append(key)
                self.stats.used += 1
            elif not self._drop(key):
                self._strays.append(key)
        return list(self._granted)

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
            if not self._drop(key):
                self._finish(key)
        return self._slots.sweep(waits=True) or bool(held)

    def _drop(self, key: ExpertKey) -> bool:
        """Let go of `key` without waiting; False if all of its read has begun and not yet ended."""
        if self._slots.cancel(key):
            self.stats.cancelled += 1
        elif self._slots.abandon(key):
            self.stats.abandoned += 1
        elif self._slots.is_loaded(key):
            self._finish(key)
        else:
            return False
        return True

    def _finish(self, key: ExpertKey) -> None:
        try:
            self._slots.block(key)
        except StorageError as error:  # nobody's request needed it; whoever does will read it again
            log.warning("expert_prefetch_failed", layer=key.layer, expert=key.expert, reason=str(error))
        else:
            self._slots.unpin(key)

    def _learn(self, layer: int, experts: Sequence[int], spared: Sequence[int]) -> None:
        # A guess of what was then done without was right: counted as wrong, it would never be read, and never be there.
        gate, wanted = self.gates.of(is_scan=self._is_scan), frozenset((*experts, *spared))
        now, busy = self._clock(), self._slots.demand_seconds
        last_layer, last_now, last_busy = self._last
        self._last = (layer, now, busy)
        if layer == last_layer + 1:  # else the time between passes would count, in which nobody may have asked at all
            gate.took(now - last_now, busy - last_busy)
        missing = sum(ExpertKey(layer, expert) not in self._slots.cache for expert in wanted)
        missing += sum(key.layer == layer and key.expert in wanted for key in self._reading)
        gate.needed(len(wanted), missing)
        if layer == self._layer:
            for expert, place in self._absent.items():
                gate.guessed(place, is_right=expert in wanted)
            self.stats.needed += len(wanted)
            self.stats.recalled += len(wanted & self._guess)
        self._layer, self._pending = -1, []
