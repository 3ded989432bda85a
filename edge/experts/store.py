"""Routed experts in RAM within a byte budget, the others read from disk straight into their slots."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge.experts.fetch import Batch, Fetch
from edge.experts.gate import Gates
from edge.experts.lookahead import Lookahead, LookaheadStats
from edge.experts.policies import ExpertKey, Policy
from edge.experts.slots import ExpertIndex, ExpertSlots, Reader, Verify

Recorder = Callable[[int, Sequence[int], bool], None]  # is told layer, experts and is_scan of each fetch
# Is told what the router of a layer, the next one, is guessed to say: f32[T, E], the greater the likelier.
GuessRecorder = Callable[[int, NDArray[np.float32]], None]

# Of a model that fits, what is still not there after so many fetches that found everything is hardly ever asked for:
# above all the experts of an MTP layer that drafts nothing. Guessing on would cost a small model a fifth of a pass.
SETTLED_FETCHES = 512


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Counters since the store was made."""

    lookups: int
    hits: int  # in a slot when asked for, and not only because of a guess
    read_bytes: int
    disk_seconds: float  # with at least one read under way
    wait_seconds: float = 0.0  # in which nothing could be computed before a read ended
    prefetch_bytes: int = 0  # of read_bytes, before somebody asked
    wasted_bytes: int = 0  # of these, not asked for by the layer that they were meant for
    lookahead: LookaheadStats = field(default_factory=LookaheadStats)


class ExpertStore:
    """Blocks of routed experts in `num_slots` slots of one page-aligned mapping. One thread at a time."""

    def __init__(
        self,
        index: ExpertIndex,
        num_slots: int,
        reader: Reader,
        policy: Policy,
        *,
        verify: Verify = "always",
        gates: Gates | None = None,
        holds_all: bool = False,
    ) -> None:
        """`gates`: when to read ahead what `expect` is told; None: never. `holds_all`: no expert ever gives way."""
        self.layout = index.experts
        self.recorder: Recorder | None = None
        self.guess_recorder: GuessRecorder | None = None  # while there is one, every pass of decoding is guessed
        self._reader = reader
        self._slots = ExpertSlots(index, num_slots, reader, policy, verify)
        self._holds_all = holds_all
        self._lookahead = Lookahead(self._slots, gates) if gates else None
        self._fetch: Fetch | None = None  # that is going on
        self._settled = 0  # fetches since the last one for which something had to be read
        self._lookups = 0
        self._hits = 0

    @property
    def memory(self) -> NDArray[np.uint8]:
        """All slots, in one piece."""
        return self._slots.memory

    @property
    def num_slots(self) -> int:
        """How many experts fit."""
        return self._slots.cache.num_slots

    @property
    def num_resident(self) -> int:
        """How many experts are there."""
        return len(self._slots.cache)

    def stats(self) -> StoreStats:
        """The counters at this moment."""
        read = self._reader.counters()
        ahead = replace(self._lookahead.stats) if self._lookahead else LookaheadStats()
        return StoreStats(
            self._lookups,
            self._hits,
            read.bytes_read,
            read.busy_seconds,
            read.wait_seconds,
            read.prefetch_bytes,
            ahead.wasted * self.layout.block_bytes + read.abandoned_bytes,
            ahead,
        )

    def close(self) -> None:
        """End the reader. The slots go when the last view of them does."""
        self._reader.close()

    def fetch(
        self, layer: int, experts: Sequence[int], *, is_scan: bool, spared: Sequence[int] = ()
    ) -> AbstractContextManager[Iterator[Batch]]:
        """The contract of ExpertSource. More experts than slots pass through the slots as these come free."""
        if self.recorder:
            self.recorder(layer, experts, is_scan)
        keys = [ExpertKey(layer, expert) for expert in experts]
        if self._holds_all and self._slots.are_settled(keys):
            # Nothing to read, to choose or to hold: all of that would cost a model in RAM 3% of its time.
            self._settled += 1
            self._lookups += len(keys)
            self._hits += len(keys)
            blocks = [(key.expert, self._slots.block(key)) for key in keys]
            return nullcontext(iter([[block] for block in blocks] if is_scan else [blocks]))
        self._settled = 0
        return self._fetching(layer, keys, is_scan=is_scan, spared=spared)

    def holds(self, layer: int, expert: int) -> bool:
        """The contract of ExpertSource."""
        key = ExpertKey(layer, expert)
        return key in self._slots.cache and self._slots.is_loaded(key)

    @contextmanager
    def _fetching(self, layer: int, keys: list[ExpertKey], *, is_scan: bool, spared: Sequence[int]) -> Iterator[Fetch]:
        experts = [key.expert for key in keys]
        granted: Sequence[ExpertKey] = ()
        if self._lookahead:
            granted = self._lookahead.settle(layer, experts, is_scan=is_scan, spared=spared)
        for expert in spared:  # what routers want is to come in once it must be read, and then to stay
            self._slots.cache.use(ExpertKey(layer, expert), is_scan=is_scan)
        resident = {key for key in keys if self._slots.cache.use(key, is_scan=is_scan)}
        if not is_scan:
            keys.sort(key=lambda key: key not in resident)
        self._fetch = fetch = Fetch(self, keys, is_scan=is_scan)
        try:
            try:
                fetch.adopt(granted)
                fetch.read_ahead()
            finally:
                if self._lookahead:
                    self._lookahead.hand_over()
            yield fetch
        finally:
            self._fetch = None
            fetch.close()

    def new_pass(self) -> None:
        """What is asked for next has nothing to do with what was asked for last: the time between them is nobody's."""
        if self._lookahead:
            self._lookahead.new_pass()

    def wants_guesses(self, *, is_scan: bool) -> bool:
        """The contract of GuessTaker."""
        if self.guess_recorder and not is_scan:
            return True
        if self._lookahead is None or (self._holds_all and self.num_resident == self.num_slots):
            return False
        if self._settled >= SETTLED_FETCHES:
            return False
        return self._lookahead.gates.of(is_scan=is_scan).is_worth_guessing

    def expect(self, layer: int, experts: Sequence[int], scores: NDArray[np.float32] | None = None) -> None:
        """The contract of GuessTaker."""
        if self.guess_recorder and scores is not None:
            self.guess_recorder(layer, scores)
        if self._lookahead:
            self._lookahead.expect(layer, experts)
            if self._fetch is None or self._fetch.is_all_asked:
                self._lookahead.begin()

    def all_asked(self) -> None:
        """Every read of the fetch was started: what the next layer may need comes after them."""
        if self._lookahead:
            self._lookahead.begin()

    def pin(self, key: ExpertKey, *, is_scan: bool) -> bool:
        """Hold `key` in a slot, its read started if it was in none; False if every slot is held."""
        is_hit = key in self._slots.cache and not (self._lookahead and self._lookahead.was_granted(key))
        while not self._slots.pin(key, is_scan=is_scan):
            if not (self._lookahead and self._lookahead.reclaim()):
                return False
        self._lookups += 1
        self._hits += is_hit
        return True

    def unpin(self, key: ExpertKey) -> None:
        """Let `key` give way again."""
        self._slots.unpin(key)

    def block(self, key: ExpertKey) -> NDArray[np.uint8]:
        """The block of a pinned `key`, once its read ended. Raises StorageError; `key` is then in no slot."""
        return self._slots.block(key)

    def loaded(self, keys: Sequence[ExpertKey]) -> list[ExpertKey]:
        """Those of some pinned keys for which `block` would return, or raise, at once; waits until there is one."""
        return self._slots.loaded(keys)
