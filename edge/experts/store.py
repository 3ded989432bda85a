"""Routed experts in RAM within a byte budget, the others read from disk straight into their slots."""

import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import ExpertLayout
from edge.errors import StorageError
from edge.experts.cache import ExpertKey, SlotCache

SCAN_READS_AHEAD = 16  # more in flight gains nothing on the disks measured


class Reader(Protocol):
    """Reads in the background; edge.kernels.ExpertReader is the real one."""

    @property
    def bytes_read(self) -> int:
        """Bytes fetched so far."""

    @property
    def busy_seconds(self) -> float:
        """Time with at least one read under way."""

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None) -> int:
        """Start filling `out` from `offset` of file number `file`; the ticket is for `wait`."""

    def wait(self, ticket: int) -> None:
        """Until that read ended. Raises StorageError if it failed; `out` is then undefined."""

    def is_done(self, ticket: int) -> bool:
        """Whether `wait` would return, or raise, at once."""

    def close(self) -> None:
        """End the reading threads."""


class ExpertIndex(Protocol):
    """What a pack says of its experts."""

    @property
    def experts(self) -> ExpertLayout:
        """How each is stored."""

    def expert_crc(self, layer: int, expert: int) -> int:
        """CRC-32C of the expert's block."""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """Counters since the store was made."""

    lookups: int
    hits: int
    read_bytes: int
    disk_seconds: float  # with at least one read under way


class ExpertStore:
    """Blocks of routed experts in `num_slots` slots of one page-aligned mapping. One thread at a time."""

    def __init__(self, index: ExpertIndex, num_slots: int, reader: Reader) -> None:
        self.layout = index.experts
        self._index = index
        self._reader = reader
        self._cache = SlotCache(num_slots)
        # A mapping of its own: its pages are aligned as O_DIRECT asks, and come into being as slots are filled.
        memory = mmap.mmap(-1, num_slots * self.layout.block_bytes)
        self._slots = np.frombuffer(memory, np.uint8).reshape(num_slots, self.layout.block_bytes)
        self._tickets: dict[ExpertKey, int] = {}
        self._lookups = 0
        self._hits = 0

    @property
    def memory(self) -> NDArray[np.uint8]:
        """All slots, in one piece."""
        return self._slots

    @property
    def num_slots(self) -> int:
        """How many experts fit."""
        return self._cache.num_slots

    @property
    def num_resident(self) -> int:
        """How many experts are there."""
        return len(self._cache)

    def stats(self) -> StoreStats:
        """The counters at this moment."""
        return StoreStats(self._lookups, self._hits, self._reader.bytes_read, self._reader.busy_seconds)

    def close(self) -> None:
        """End the reader. The slots go when the last view of them does."""
        self._reader.close()

    @contextmanager
    def fetch(self, layer: int, experts: Sequence[int], *, is_scan: bool) -> Iterator["Fetch"]:
        """The contract of ExpertSource. More experts than slots pass through the slots as these come free."""
        keys = [ExpertKey(layer, expert) for expert in experts]
        resident = {key for key in keys if self._cache.find(key, is_scan=is_scan) is not None}
        if not is_scan:
            keys.sort(key=lambda key: key not in resident)
        fetch = Fetch(self, keys, is_scan)
        try:
            fetch.read_ahead()
            yield fetch
        finally:
            fetch.close()

    def pin(self, key: ExpertKey, *, is_scan: bool) -> bool:
        """Hold `key` in a slot, its read started if it was in none; False if every slot is held."""
        is_hit = key in self._cache
        if not is_hit and not self._start_read(key, is_scan):
            return False
        self._cache.pin(key)
        self._lookups += 1
        self._hits += is_hit
        return True

    def _start_read(self, key: ExpertKey, is_scan: bool) -> bool:
        slot = self._cache.admit(key, is_scan=is_scan)
        if slot is None:
            return False
        crc = self._index.expert_crc(*key)
        try:
            self._tickets[key] = self._reader.read(
                key.layer, key.expert * self.layout.block_bytes, self._slots[slot], crc
            )
        except BaseException:
            self._cache.drop(key)  # or its slot would pass for loaded
            raise
        return True

    def block(self, key: ExpertKey) -> NDArray[np.uint8]:
        """The block of a pinned `key`, once its read ended. Raises StorageError; `key` is then in no slot."""
        ticket = self._tickets.pop(key, None)
        if ticket is not None:
            try:
                self._reader.wait(ticket)
            except StorageError:
                self._cache.unpin(key)
                self._cache.drop(key)
                raise
        block: NDArray[np.uint8] = self._slots[self._cache.slot(key)]
        return block

    def is_loaded(self, key: ExpertKey) -> bool:
        """Whether `block` would return, or raise, at once."""
        ticket = self._tickets.get(key)
        return ticket is None or self._reader.is_done(ticket)

    def unpin(self, key: ExpertKey) -> None:
        """Let `key` give way again."""
        self._cache.unpin(key)


class Fetch:
    """The blocks of some experts, in the order of `keys`, with as many reads ahead as there are slots."""

    def __init__(self, store: ExpertStore, keys: list[ExpertKey], is_scan: bool) -> None:
        self._store = store
        self._is_scan = is_scan
        # A scan reads ahead into slots that it takes from what decoding uses: no more than keep the disk busy.
        self._most_pinned = min(SCAN_READS_AHEAD, max(1, store.num_slots // 2)) if is_scan else store.num_slots
        self._ahead = deque(keys)
        self._pinned: deque[ExpertKey] = deque()
        self._taken: list[ExpertKey] = []
        self._batch: list[tuple[int, NDArray[np.uint8]]] = []

    def __iter__(self) -> "Fetch":
        return self

    def __next__(self) -> list[tuple[int, NDArray[np.uint8]]]:
        self._finish_batch()
        self.read_ahead()
        if not self._pinned and self._ahead:  # a silent end here would leave experts out of the sum
            raise RuntimeError(f"all {self._store.num_slots} slots are held by another fetch")
        if not self._pinned:
            raise StopIteration
        self._take()
        while self._pinned and not self._is_scan and self._store.is_loaded(self._pinned[0]):
            self._take()
        return self._batch

    def read_ahead(self) -> None:
        """Start as many reads as there are slots for."""
        most = self._most_pinned
        while len(self._pinned) < most and self._ahead and self._store.pin(self._ahead[0], is_scan=self._is_scan):
            self._pinned.append(self._ahead.popleft())

    def close(self) -> None:
        """Let go of every slot, after the reads into them ended."""
        self._finish_batch()
        for key in self._pinned:
            # Whoever abandons a fetch has its reason already; a second failed read adds nothing to it.
            with suppress(StorageError):
                self._store.block(key)
                self._store.unpin(key)
        self._pinned.clear()

    def _take(self) -> None:
        key = self._pinned.popleft()
        self._batch.append((key.expert, self._store.block(key)))
        self._taken.append(key)

    def _finish_batch(self) -> None:
        for key in self._taken:
            self._store.unpin(key)
        self._taken, self._batch = [], []
