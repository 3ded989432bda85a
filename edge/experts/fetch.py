"""The blocks of some experts of one layer, handed over in batches while the rest is still being read."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.errors import StorageError
from edge.experts.policies import ExpertKey

Batch = list[tuple[int, NDArray[np.uint8]]]  # experts and their packed blocks
SCAN_READS_AHEAD = 16  # more in flight gains nothing on the disks measured


class Slots(Protocol):
    """What a fetch asks of the store."""

    @property
    def num_slots(self) -> int:
        """How many experts fit."""

    def pin(self, key: ExpertKey, *, is_scan: bool) -> bool:
        """Hold `key` in a slot, its read started if it was in none; False if every slot is held."""

    def unpin(self, key: ExpertKey) -> None:
        """Let `key` give way again."""

    def block(self, key: ExpertKey) -> NDArray[np.uint8]:
        """The block of a pinned `key`, once its read ended. Raises StorageError; `key` is then in no slot."""

    def loaded(self, keys: Sequence[ExpertKey]) -> list[ExpertKey]:
        """Those of some pinned keys for which `block` would return, or raise, at once; waits until there is one."""

    def all_asked(self) -> None:
        """Every read of the fetch was started."""


class Fetch:
    """Reads ahead into as many slots as it may hold.

    Decoding gets together whatever is there, hits first, then in order of arrival. A scan gets one expert at a time in
    rising order, and holds few slots, for it takes them from what decoding uses.
    """

    def __init__(self, slots: Slots, keys: Sequence[ExpertKey], *, is_scan: bool) -> None:
        self._slots = slots
        self._is_scan = is_scan
        self._most_pinned = most_pinned(slots.num_slots, is_scan=is_scan)
        self._ahead = deque(keys)
        self._pinned: list[ExpertKey] = []  # and not yet handed over
        self._adopted: set[ExpertKey] = set()  # of these, those that have their slots from before the fetch
        self._taken: list[ExpertKey] = []

    @property
    def is_all_asked(self) -> bool:
        """Whether every read was started."""
        return not self._ahead

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self._let_go()
        self.read_ahead()
        if not self._pinned and self._ahead:  # a silent end here would leave experts out of the sum
            raise RuntimeError(f"all {self._slots.num_slots} slots are held by another fetch")
        if not self._pinned:
            raise StopIteration
        ready = [min(self._pinned)] if self._is_scan else self._slots.loaded(self._pinned)
        return [(key.expert, self._take(key)) for key in ready]

    def adopt(self, keys: Iterable[ExpertKey]) -> None:
        """Hold some of the keys that have slots already, besides those that the fetch may hold."""
        for key in keys:
            self._slots.pin(key, is_scan=self._is_scan)
            self._ahead.remove(key)
            self._pinned.append(key)
            self._adopted.add(key)

    def read_ahead(self) -> None:
        """Start as many reads as there are slots for."""
        while self._ahead and len(self._pinned) - len(self._adopted) < self._most_pinned:
            if not self._slots.pin(self._ahead[0], is_scan=self._is_scan):
                return
            self._pinned.append(self._ahead.popleft())
        if self.is_all_asked:
            self._slots.all_asked()

    def close(self) -> None:
        """Let go of every slot, after the reads into them ended."""
        self._let_go()
        for key in self._pinned:
            # Whoever abandons a fetch has its reason already; a second failed read adds nothing to it.
            with suppress(StorageError):
                self._slots.block(key)
                self._slots.unpin(key)
        self._pinned.clear()

    def _take(self, key: ExpertKey) -> NDArray[np.uint8]:
        self._pinned.remove(key)
        self._adopted.discard(key)
        block = self._slots.block(key)
        self._taken.append(key)
        return block

    def _let_go(self) -> None:
        for key in self._taken:
            self._slots.unpin(key)
        self._taken.clear()


def most_pinned(num_slots: int, *, is_scan: bool) -> int:
    """How many slots a fetch may hold at once."""
    return min(SCAN_READS_AHEAD, max(1, num_slots // 2)) if is_scan else num_slots
