"""A thread that puts snapshots on disk while the model computes."""

import queue
import threading
from collections.abc import Callable

import structlog

from edge.logs import error_fields
from edge.prefix.snapshot import Snapshot

log = structlog.get_logger()

Save = Callable[[bytes, bytes, Snapshot], object]  # scope, name; see edge.prefix.disk.DiskTier.save


class SnapshotWriter:
    """Saves one snapshot after the other. Its methods are for one other thread."""

    def __init__(self, save: Save) -> None:
        self._save = save
        self._queue: queue.SimpleQueue[tuple[bytes, bytes, Snapshot] | None] = queue.SimpleQueue()
        self._pending: set[bytes] = set()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="prefix-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> frozenset[bytes]:
        """The names of snapshots that are still to be written: their memory is in use."""
        with self._changed:
            return frozenset(self._pending)

    def submit(self, scope: bytes, name: bytes, snapshot: Snapshot) -> None:
        """Write a snapshot when its turn comes."""
        with self._changed:
            if name in self._pending:
                return
            self._pending.add(name)
        self._queue.put((scope, name, snapshot))

    def drain(self) -> None:
        """Return once everything submitted is written."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending)

    def close(self) -> None:
        """Write what is left, then end; nothing else may be called afterwards."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            scope, name, snapshot = item
            try:
                self._save(scope, name, snapshot)
            except Exception as error:
                # One that nobody foresaw. Those behind this one would stay in memory for ever if the thread ended.
                log.error("prefix_writer_broke", **error_fields(error))  # noqa: TRY400 -- no text
            finally:
                del item, snapshot  # before its memory counts as free
                with self._changed:
                    self._pending.discard(name)
                    self._changed.notify_all()
