"""Which expert sits in which slot. Values in, values out: no memory, no reads, no clock."""

from edge.experts.policies import ExpertKey, Policy


class SlotCache:
    """Experts in a fixed number of slots; of those that are not pinned, `policy` says which gives way."""

    def __init__(self, num_slots: int, policy: Policy) -> None:
        if num_slots < 1:
            raise ValueError(f"a cache of {num_slots} slots holds nothing")
        self.num_slots = num_slots
        self._policy = policy
        self._slots: dict[ExpertKey, int] = {}
        self._pins: dict[ExpertKey, int] = {}
        self._free = list(range(num_slots - 1, -1, -1))
        self._num_withheld = 0

    def __contains__(self, key: ExpertKey) -> bool:
        return key in self._slots

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def num_held(self) -> int:
        """How many slots no expert can be admitted to: of pinned experts, and withheld ones."""
        return len(self._pins) + self._num_withheld

    def num_pins(self, key: ExpertKey) -> int:
        """How often `key` is pinned."""
        return self._pins.get(key, 0)

    def use(self, key: ExpertKey, *, is_scan: bool = False) -> bool:
        """Note that `key` is needed; whether it is in a slot."""
        self._policy.use(key, is_scan=is_scan)
        return key in self._slots

    def slot(self, key: ExpertKey) -> int:
        """The slot of `key`, which is in one."""
        return self._slots[key]

    def admit(self, key: ExpertKey, *, is_scan: bool = False) -> int | None:
        """A slot for `key`, which is in none yet; None if every slot is pinned."""
        if not self._free:
            victim = self._policy.victim(self._pins)
            if victim is None:
                return None
            self.drop(victim)
        slot = self._free.pop()
        self._slots[key] = slot
        self._policy.admit(key, is_scan=is_scan)
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
        self._policy.remove(key)

    def withhold(self, key: ExpertKey) -> int:
        """As `drop`, but nothing is admitted to the slot, which is returned, until `give_back`."""
        self._policy.remove(key)
        self._num_withheld += 1
        return self._slots.pop(key)

    def give_back(self, slot: int) -> None:
        """Let experts into a withheld slot again."""
        self._num_withheld -= 1
        self._free.append(slot)
