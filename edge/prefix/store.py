"""What the engine talks to: prompts begin where an earlier one of their tenant allows, and leave copies behind."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from edge.config import ModelConfig
from edge.prefix.cache import SnapshotCache
from edge.prefix.disk import DiskTier
from edge.prefix.keys import SECRET_BYTES, PrefixKeys
from edge.prefix.points import BLOCK_TOKENS, MIN_GAIN_TOKENS, SeenPrompts, copy_points
from edge.prefix.snapshot import Capture, Snapshot, copied, snapshot_bytes, snapshot_pages
from edge.prefix.snapshot_file import Address
from edge.prefix.writer import SnapshotWriter
from edge.state import SequenceState


@dataclass(frozen=True, slots=True)
class PrefixStats:
    """Since the engine was loaded; the last two, now."""

    hits: int = 0  # prompts that went on where an earlier one had been
    misses: int = 0
    disk_hits: int = 0  # those of the hits that came from disk
    reused_tokens: int = 0
    kept: int = 0  # snapshots made
    snapshots: int = 0
    held_bytes: int = 0


class PrefixStore:
    """Snapshots for all tenants, at most `budget_bytes` in memory (0: none at all), and on disk if there is a tier.

    Not thread-safe. Nothing that goes wrong here is an error of a request: it is then computed from its beginning.
    """

    def __init__(self, config: ModelConfig, budget_bytes: int, disk: DiskTier | None = None) -> None:
        self._config = config
        self._cache = SnapshotCache(budget_bytes)
        self._seen = SeenPrompts()
        self._disk = disk
        self._keys = disk.keys if disk else PrefixKeys(secrets.token_bytes(SECRET_BYTES))
        self._writer = SnapshotWriter(disk.save) if disk else None
        self._hits = self._misses = self._disk_hits = self._reused_tokens = self._kept = 0

    def begin(self, tenant: str, ids: Sequence[int], state: SequenceState) -> "Visit":
        """Put the fresh `state` as far into the prompt `ids` as an earlier one allows, before its last token."""
        if not self._cache.budget_bytes:
            return Visit(self, b"", ids, state, ())
        scope = self._keys.scope(tenant)
        self._restore(scope, ids, state)
        blocks = list(self._keys.names(scope, ids, range(BLOCK_TOKENS, len(ids) + 1, BLOCK_TOKENS)))
        shared = self._seen.meet(blocks) * BLOCK_TOKENS
        return Visit(self, scope, ids, state, copy_points(len(ids), state.length, shared))

    def forget(self, tenant: str) -> None:
        """Remove all that a tenant's prompts left, also on disk; those that still run leave theirs in the end.

        Raises OSError if something stays on disk.
        """
        scope = self._keys.scope(tenant)
        self._cache.forget(scope)
        if self._disk and self._writer:
            self._writer.drain()
            self._disk.directory.forget(scope)

    def stats(self) -> PrefixStats:
        """Counters, and what is held."""
        return PrefixStats(
            hits=self._hits,
            misses=self._misses,
            disk_hits=self._disk_hits,
            reused_tokens=self._reused_tokens,
            kept=self._kept,
            snapshots=len(self._cache),
            held_bytes=self._cache.nbytes,
        )

    def close(self) -> None:
        """Let all go, once what is to be on disk is there."""
        if self._disk and self._writer:
            self._writer.close()
            self._disk.directory.close()
        self._cache.clear()

    def reserve(self, scope: bytes, ids: Sequence[int]) -> Address | None:
        """Make room for a snapshot after `ids`; None if there is one, or no room."""
        name = self._keys.name(scope, ids)
        if name in self._cache or not self._reserve(scope, snapshot_bytes(self._config, len(ids))):
            return None
        return Address(scope, name, len(ids))

    def keep(self, address: Address, snapshot: Snapshot) -> None:
        """Hold the snapshot for which room was reserved, unless a neighbour in the same pass made it, too."""
        if address.name in self._cache:
            self.release(address)
            return
        self._cache.put(address.name, address.scope, snapshot)
        self._kept += 1
        if self._writer:
            self._writer.submit(address.scope, address.name, snapshot)

    def release(self, address: Address) -> None:
        """The snapshot for which room was reserved is not made."""
        self._cache.release(snapshot_bytes(self._config, address.length))

    def _restore(self, scope: bytes, ids: Sequence[int], state: SequenceState) -> None:
        on_disk = self._disk.addresses(scope) if self._disk else set()
        lengths = self._cache.lengths(scope) | {address.length for address in on_disk}
        usable = sorted(length for length in lengths if length < len(ids))
        found = zip(usable, self._keys.names(scope, ids, usable), strict=True)
        for length, name in reversed(list(found)):
            address = Address(scope, name, length)
            snapshot = self._cache.get(name)
            if snapshot is None and address in on_disk:
                snapshot = self._load(address)
            if snapshot is not None:
                snapshot.restore(state)
                self._hits += 1
                self._reused_tokens += length
                return
        self._misses += 1

    def _load(self, address: Address) -> Snapshot | None:
        nbytes = snapshot_bytes(self._config, address.length)
        if self._disk is None or not self._reserve(address.scope, nbytes):
            return None
        pages = snapshot_pages(nbytes)
        if not self._disk.load(address, pages):
            self._cache.release(nbytes)
            return None
        snapshot = Snapshot(address.length, pages)
        self._cache.put(address.name, address.scope, snapshot)
        self._disk_hits += 1
        return snapshot

    def _reserve(self, scope: bytes, nbytes: int) -> bool:
        return self._cache.reserve(scope, nbytes, self._writer.pending if self._writer else ())


class Visit:
    """One request's use of the store, from when it has a place until it leaves it with `end`.

    Only `computed` and `finished` let snapshots live: who fails or is cancelled in a pass leaves nothing half-computed.
    """

    def __init__(
        self, store: PrefixStore, scope: bytes, ids: Sequence[int], state: SequenceState, points: Sequence[int]
    ) -> None:
        """`ids`: the prompt, behind which the answer grows."""
        self.reused_tokens = state.length
        self._store = store
        self._scope = scope
        self._ids = ids
        self._state = state
        self._points = list(points)
        self._last_point = state.length
        self._open: dict[Address, Capture] = {}

    @property
    def may_keep(self) -> bool:
        """Whether anything of this request can live on in the store."""
        return bool(self._scope)

    def captures(self, end: int) -> list[Capture]:
        """The copies to be made by the next pass, which moves the state on to `end` tokens."""
        while self._points and self._points[0] <= end:
            self._last_point = self._points.pop(0)
            address = self._store.reserve(self._scope, self._ids[: self._last_point])
            if address is not None:
                self._open[address] = Capture(self._state, self._last_point)
        return list(self._open.values())

    def computed(self) -> None:
        """The pass is done, and so are its copies."""
        for address, capture in self._open.items():
            self._store.keep(address, capture.finish())
        self._open.clear()

    def spoil(self) -> None:
        """The state no longer follows from the tokens alone: nothing of it is kept from now on."""
        self.end()
        self._points.clear()
        self._scope = b""

    def finished(self) -> None:
        """The answer has ended: a next turn may go on behind it."""
        length = self._state.length
        if not self._scope or length < self._last_point + MIN_GAIN_TOKENS:
            return
        address = self._store.reserve(self._scope, self._ids[:length])
        if address is not None:
            self._store.keep(address, copied(self._state))

    def end(self) -> None:
        """The request leaves its place."""
        for address in self._open:
            self._store.release(address)
        self._open.clear()
