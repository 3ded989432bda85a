"""Slots in RAM that experts are read into."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import ExpertLayout
from edge.errors import StorageError
from edge.experts.cache import SlotCache
from edge.experts.policies import ExpertKey, Policy
from edge.kernels import ReadCounters
from edge.memory import mapped_bytes

Verify = Literal["first", "always", "off"]  # which reads of an expert are checked against its checksum


class Reader(Protocol):
    """Reads in the background; edge.kernels.ExpertReader is the real one and has the contract."""

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None, *, is_prefetch: bool) -> int:
        """Start filling `out` from `offset` of file number `file`; the ticket is for `wait`."""

    def wait(self, ticket: int) -> None:
        """Until that read ended. Raises StorageError if it failed; `out` is then undefined."""

    def wait_any(self, tickets: Sequence[int]) -> list[int]:
        """Until one of the reads ended; those that have, for each of which `wait` is still due."""

    def is_done(self, ticket: int) -> bool:
        """Whether `wait` would return, or raise, at once."""

    def promote(self, ticket: int) -> None:
        """A prefetch is needed now."""

    def cancel(self, ticket: int) -> bool:
        """Forget a read of which nothing has begun; False if it has, and then goes on."""

    def abandon(self, ticket: int) -> bool:
        """Drop what has not begun of a read, of which `wait` is due all the same; False if all of it has begun."""

    def counters(self) -> ReadCounters:
        """What was read so far."""

    def close(self) -> None:
        """End the reading threads."""


class ExpertIndex(Protocol):
    """What a pack says of its experts."""

    @property
    def experts(self) -> ExpertLayout:
        """How each is stored."""

    def expert_crc(self, layer: int, expert: int) -> int:
        """CRC-32C of the expert's block."""


class ExpertSlots:
    """Blocks in slots, and the reads into them. An expert that is being read is pinned by whoever wants it."""

    def __init__(self, index: ExpertIndex, num_slots: int, reader: Reader, policy: Policy, verify: Verify) -> None:
        self.cache = SlotCache(num_slots, policy)
        self.block_bytes = index.experts.block_bytes
        self.memory = mapped_bytes(num_slots * self.block_bytes).reshape(num_slots, self.block_bytes)
        self._index = index
        self._reader = reader
        self._verify = verify
        self._verified: set[ExpertKey] = set()
        self._tickets: dict[ExpertKey, int] = {}  # of reads that nobody has waited for yet
        self._abandoned: dict[int, int] = {}  # slots, by the tickets of the reads that still write there

    def pin(self, key: ExpertKey, *, is_scan: bool = False, is_prefetch: bool = False) -> bool:
        """Hold `key` in a slot, its read started if it was in none; False if every slot is held."""
        if key not in self.cache and not self._start_read(key, is_scan, is_prefetch):
            return False
        self.cache.pin(key)
        return True

    def unpin(self, key: ExpertKey) -> None:
        """Let `key`, which is not being read, give way again."""
        self.cache.unpin(key)

    def is_loading(self, key: ExpertKey) -> bool:
        """Whether nobody has waited for the read of `key` yet."""
        return key in self._tickets

    def are_settled(self, keys: Sequence[ExpertKey]) -> bool:
        """Whether all `keys` are in slots and no read at all is under way."""
        return not self._tickets and not self._abandoned and all(key in self.cache for key in keys)

    @property
    def demand_seconds(self) -> float:
        """Time with a read under way that somebody waits for."""
        return self._reader.counters().demand_seconds

    def is_loaded(self, key: ExpertKey) -> bool:
        """Whether `block` of a pinned `key` would return, or raise, at once."""
        ticket = self._tickets.get(key)
        return ticket is None or self._reader.is_done(ticket)

    def loaded(self, keys: Sequence[ExpertKey]) -> list[ExpertKey]:
        """Those of some pinned keys that are loaded; waits until there is one."""
        loading = {self._tickets[key]: key for key in keys if key in self._tickets}
        if len(loading) == len(keys):
            return [loading[ticket] for ticket in self._reader.wait_any(list(loading))]
        return [key for key in keys if self.is_loaded(key)]

    def block(self, key: ExpertKey) -> NDArray[np.uint8]:
        """The block of a pinned `key`, once its read ended. Raises StorageError; `key` is then in no slot."""
        ticket = self._tickets.pop(key, None)
        if ticket is not None:
            try:
                self._reader.wait(ticket)
            except StorageError:
                self.cache.unpin(key)
                self.cache.drop(key)
                raise
            self._verified.add(key)
        block: NDArray[np.uint8] = self.memory[self.cache.slot(key)]
        return block

    def promote(self, key: ExpertKey) -> None:
        """A prefetched `key` is needed now."""
        if key in self._tickets:
            self._reader.promote(self._tickets[key])

    def cancel(self, key: ExpertKey) -> bool:
        """Empty the slot of a pinned `key` if its read has not begun; else False, and all stays as it is."""
        if key not in self._tickets or not self._reader.cancel(self._tickets[key]):
            return False
        del self._tickets[key]
        self.cache.unpin(key)
        self.cache.drop(key)
        return True

    def abandon(self, key: ExpertKey) -> bool:
        """Drop what has not begun of the read of a pinned `key`, which is then in no slot; False if all of it has.

        The slot comes back with `sweep`, for a part of the read may be under way.
        """
        if key not in self._tickets or not self._reader.abandon(self._tickets[key]):
            return False
        self.cache.unpin(key)
        self._abandoned[self._tickets.pop(key)] = self.cache.withhold(key)
        return True

    def sweep(self, *, waits: bool = False) -> bool:
        """Free the slots of abandoned reads that have ended, or of all when they have; whether there was one."""
        ended = [ticket for ticket in self._abandoned if waits or self._reader.is_done(ticket)]
        for ticket in ended:
            with suppress(StorageError):  # what was read there is of no use to anybody
                self._reader.wait(ticket)
            self.cache.give_back(self._abandoned.pop(ticket))
        return bool(ended)

    def _start_read(self, key: ExpertKey, is_scan: bool, is_prefetch: bool) -> bool:
        slot = self.cache.admit(key, is_scan=is_scan or is_prefetch)
        if slot is None:
            return False
        offset = key.expert * self.block_bytes
        crc = self._index.expert_crc(*key) if self._is_checked(key) else None
        try:
            self._tickets[key] = self._reader.read(key.layer, offset, self.memory[slot], crc, is_prefetch=is_prefetch)
        except BaseException:
            self.cache.drop(key)  # or its slot would pass for loaded
            raise
        return True

    def _is_checked(self, key: ExpertKey) -> bool:
        return self._verify == "always" or (self._verify == "first" and key not in self._verified)
