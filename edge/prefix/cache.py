"""Snapshots in memory under a budget. Who gives way: edge.prefix.room. Pure: no clock, no I/O."""

from collections import OrderedDict
from collections.abc import Collection
from typing import NamedTuple

from edge.prefix.room import Holding, leaving
from edge.prefix.snapshot import Snapshot


class _Held(NamedTuple):
    scope: bytes
    snapshot: Snapshot


class SnapshotCache:
    """At most `budget_bytes` of snapshots and of room reserved for new ones. Not thread-safe."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        self._held_bytes = 0
        self._reserved_bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, name: bytes) -> bool:
        return name in self._held

    @property
    def nbytes(self) -> int:
        """Held and reserved."""
        return self._held_bytes + self._reserved_bytes

    def lengths(self, scope: bytes) -> set[int]:
        """How many tokens the snapshots of a scope stand for."""
        return {held.snapshot.length for held in self._held.values() if held.scope == scope}

    def get(self, name: bytes) -> Snapshot | None:
        """The snapshot of that name, which counts as used now."""
        if name not in self._held:
            return None
        self._held.move_to_end(name)
        return self._held[name].snapshot

    def reserve(self, scope: bytes, nbytes: int, pinned: Collection[bytes] = ()) -> bool:
        """Make room for a scope's snapshot before it is made; False, and nothing is lost, if there cannot be so much.

        `pinned`: the names of snapshots whose memory would not become free.
        """
        holdings = [Holding(held.scope, held.snapshot.nbytes, name in pinned) for name, held in self._held.items()]
        gone = leaving(holdings, Holding(scope, nbytes), self.budget_bytes - self._reserved_bytes)
        if gone is None:
            return False
        names = list(self._held)
        for place in gone:
            self._remove(names[place])
        self._reserved_bytes += nbytes
        return True

    def release(self, nbytes: int) -> None:
        """Give reserved room back."""
        self._reserved_bytes -= nbytes

    def put(self, name: bytes, scope: bytes, snapshot: Snapshot) -> None:
        """Hold a snapshot whose room was reserved, under a name that is free."""
        self.release(snapshot.nbytes)
        self._held[name] = _Held(scope, snapshot)
        self._held_bytes += snapshot.nbytes

    def forget(self, scope: bytes) -> None:
        """Let all snapshots of a scope go."""
        for name in [name for name, held in self._held.items() if held.scope == scope]:
            self._remove(name)

    def clear(self) -> None:
        """Let all snapshots go."""
        self._held.clear()
        self._held_bytes = 0

    def _remove(self, name: bytes) -> None:
        self._held_bytes -= self._held.pop(name).snapshot.nbytes
