"""Which expert gives way when a slot is needed. Values in, values out: no memory, no reads, no clock.

A scan is a prompt passing through the experts: it uses nearly all of each layer once, and what it brings should not
displace what decoding keeps using.
"""

import heapq
from collections import OrderedDict
from collections.abc import Container
from typing import NamedTuple, Protocol, Self

# A use counts half after so many passes: best over the drifts tried (edge/EXPERIMENTS.md).
HALF_LIFE_PASSES = 32


class ExpertKey(NamedTuple):
    """One routed expert of the model."""

    layer: int
    expert: int


class Policy(Protocol):
    """Knows which experts are resident, and in which order they give way."""

    def use(self, key: ExpertKey, *, is_scan: bool) -> None:
        """`key` is needed, resident or not."""

    def admit(self, key: ExpertKey, *, is_scan: bool) -> None:
        """`key` becomes resident."""

    def remove(self, key: ExpertKey) -> None:
        """`key` is resident no more."""

    def victim(self, held: Container[ExpertKey]) -> ExpertKey | None:
        """The resident key to give way next, none of those in `held`; it stays resident until `remove`."""


class Lru:
    """The least recently used gives way.

    With `resists_scans` what a scan admits is the next to give way, and what it finds does not become recent.
    """

    def __init__(self, *, resists_scans: bool) -> None:
        self._resists_scans = resists_scans
        self._order: OrderedDict[ExpertKey, None] = OrderedDict()  # least recently used first

    def use(self, key: ExpertKey, *, is_scan: bool) -> None:
        """See Policy."""
        if key in self._order and not (is_scan and self._resists_scans):
            self._order.move_to_end(key)

    def admit(self, key: ExpertKey, *, is_scan: bool) -> None:
        """See Policy."""
        self._order[key] = None
        if is_scan and self._resists_scans:
            self._order.move_to_end(key, last=False)

    def remove(self, key: ExpertKey) -> None:
        """See Policy."""
        del self._order[key]

    def victim(self, held: Container[ExpertKey]) -> ExpertKey | None:
        """See Policy."""
        return next((key for key in self._order if key not in held), None)


class Ranked:
    """The resident key with the lowest rank gives way; ranks may change. Lazy: a heap holds outdated ranks, too."""

    def __init__(self) -> None:
        self._ranks: dict[ExpertKey, tuple[float, int]] = {}  # of resident keys
        self._heap: list[tuple[tuple[float, int], ExpertKey]] = []

    def __contains__(self, key: ExpertKey) -> bool:
        return key in self._ranks

    def __setitem__(self, key: ExpertKey, rank: tuple[float, int]) -> None:
        self._ranks[key] = rank
        heapq.heappush(self._heap, (rank, key))
        if len(self._heap) > 64 + 4 * len(self._ranks):  # so that what is outdated takes no more than a share
            self._heap = [(rank, key) for key, rank in self._ranks.items()]
            heapq.heapify(self._heap)

    def __delitem__(self, key: ExpertKey) -> None:
        del self._ranks[key]

    def lowest(self, held: Container[ExpertKey]) -> ExpertKey | None:
        """The key of the lowest rank that is not in `held`."""
        passed = []
        found = None
        while self._heap and found is None:
            rank, key = self._heap[0]
            if self._ranks.get(key) != rank:
                heapq.heappop(self._heap)
            elif key in held:
                passed.append(heapq.heappop(self._heap))
            else:
                found = key
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return found

    def scale(self, factor: float) -> None:
        """Multiply the first part of every rank."""
        self._ranks = {key: (rank * factor, turn) for key, (rank, turn) in self._ranks.items()}
        self._heap = [(rank, key) for key, rank in self._ranks.items()]
        heapq.heapify(self._heap)


class DecayedLfu:
    """The least often used in decoding gives way, where a use counts half as much after `half_life` further uses.

    Uses count from before an expert became resident, too. A scan's do not: among experts never used in decoding, those
    that a scan brought last give way first, so that the next chunk of a long prompt finds the others.
    """

    def __init__(self, half_life: float) -> None:
        if half_life <= 0:
            raise ValueError(f"half_life is {half_life}, expected above 0")
        # Not the old counts shrink but the new ones grow: nothing needs to be touched that is not used.
        self._growth: float = 2.0 ** (1.0 / half_life)
        self._weight = 1.0
        self._counts: dict[ExpertKey, float] = {}
        self._resident = Ranked()
        self._turn = 0

    @classmethod
    def for_passes(cls, uses_per_pass: float) -> Self:
        """For a model that uses so many experts, all layers together, to compute a token."""
        return cls(HALF_LIFE_PASSES * uses_per_pass)

    def use(self, key: ExpertKey, *, is_scan: bool) -> None:
        """See Policy."""
        if is_scan:
            return
        self._turn += 1
        self._weight *= self._growth
        self._counts[key] = self._counts.get(key, 0.0) + self._weight
        if key in self._resident:
            self._resident[key] = (self._counts[key], self._turn)
        if self._weight > 2.0**500:
            self._rescale(2.0**-500)

    def admit(self, key: ExpertKey, *, is_scan: bool) -> None:
        """See Policy."""
        self._turn += 1
        self._resident[key] = (self._counts.get(key, 0.0), -self._turn if is_scan else self._turn)

    def remove(self, key: ExpertKey) -> None:
        """See Policy."""
        del self._resident[key]

    def victim(self, held: Container[ExpertKey]) -> ExpertKey | None:
        """See Policy."""
        return self._resident.lowest(held)

    def _rescale(self, factor: float) -> None:
        self._weight *= factor
        self._counts = {key: count * factor for key, count in self._counts.items()}
        self._resident.scale(factor)
