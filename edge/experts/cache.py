"""Which expert sits in which slot. Values in, values out: no memory, no reads, no clock."""

from collections import OrderedDict
from typing import NamedTuple


class ExpertKey(NamedTuple):
    """One routed expert of the model."""

    layer: int
    expert: int


class SlotCache:
    """Experts in a fixed number of slots; the least recently used one that is not pinned gives way.

    An expert admitted with `is_scan` is the next to give way, and looking one up so does not make it recent: a prompt
    passes through every expert once and would otherwise flush those that decoding keeps using.
    """

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"a cache of {num_slots} slots holds nothing")
        self.num_slots = num_slots
        self._slots: OrderedDict[ExpertKey, int] = OrderedDict()  # least recently used first
        self._pins: dict[ExpertKey, int] = {}
        self._free = list(range(num_slots - 1, -1, -1))

    def __contains__(self, key: ExpertKey) -> bool:
        return key in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, key: ExpertKey, *, is_scan: bool = False) -> int | None:
        """The slot of `key`, now the most recently used unless `is_scan`; None if it is in none."""
        slot = self._slots.get(key)
        if slot is not None and not is_scan:
            self._slots.move_to_end(key)
        return slot

    def slot(self, key: ExpertKey) -> int:
        """The slot of `key`, which is in one."""
        return self._slots[key]

    def admit(self, key: ExpertKey, *, is_scan: bool = False) -> int | None:
        """A slot for `key`, which is in none yet; None if every slot is pinned."""
        if not self._free and not self._evict():
            return None
        slot = self._free.pop()
        self._slots[key] = slot
        if is_scan:
            self._slots.move_to_end(key, last=False)
        return slot

    def pin(self, key: ExpertKey) -> None:
        """Keep `key`, which is in a slot, where it is until as many `unpin`."""
        self._pins[key] = self._pins.get(key, 0) + 1

    def unpin(self, key: ExpertKey) -> None:
        """Undo one `pin`."""
        self._pins[key] -= 1
        if not self._pins[key]:
            del self._pins[key]

    def drop(self, key: ExpertKey) -> None:
        """Empty the slot of `key`, which is not pinned and whose content is not to be used."""
        self._free.append(self._slots.pop(key))

    def _evict(self) -> bool:
        for key in self._slots:
            if key not in self._pins:
                self.drop(key)
                return True
        return False
