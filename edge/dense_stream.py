"""Parts of a model whose matrices do not stay in RAM: read in the order of their use, ahead of it, over and over.

A part is a layer, or some rows of the head. They live in a ring of slots. While a part computes in one slot the next
ones are read into the others, past the end of a pass into the next, so that the disk never waits for the computation.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.contents import Section
from edge.checkpoint.matrix import Matrix
from edge.errors import StorageError
from edge.memory import mapped_bytes
from edge.profiling import DISK_WAIT, UNTIMED, Watch


class SectionReader(Protocol):
    """The part of edge.kernels.ExpertReader that a stream needs."""

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None, *, is_prefetch: bool) -> int:
        """Start a read."""

    def wait(self, ticket: int) -> None:
        """Until it ended. Raises StorageError."""

    def promote(self, ticket: int) -> None:
        """A prefetch is waited for now."""

    def cancel(self, ticket: int) -> bool:
        """Forget a read that has not begun."""


@dataclass(frozen=True, slots=True)
class StreamedSection:
    """A part's place in the file and the checksum of all of it."""

    section: Section
    crc: int


@dataclass(frozen=True, slots=True)
class _Read:
    part: int
    slot: int
    ticket: int


class DenseStream:
    """The matrices of numbered parts, a few of them in RAM at any time. One thread at a time."""

    def __init__(
        self,
        parts: Mapping[int, StreamedSection],
        num_slots: int,
        reader: SectionReader,
        watch: Watch = UNTIMED,
        file: int = 0,
    ) -> None:
        """`parts` in the order of their use in a pass; `file` is what the reader calls the file they are in."""
        self.parts = parts
        self._order = tuple(parts)
        self._reader = reader
        self._file = file
        self._waiting = watch.span(DISK_WAIT)
        slot_bytes = max(part.section.nbytes for part in parts.values())
        self._slots = mapped_bytes(num_slots * slot_bytes).reshape(num_slots, slot_bytes)
        self._free = deque(range(num_slots))
        self._ahead: deque[_Read] = deque()
        self._next = 0  # position in `_order` of what is read next

    @property
    def memory(self) -> NDArray[np.uint8]:
        """All slots, in one piece."""
        return self._slots

    @property
    def num_slots(self) -> int:
        """How many parts fit."""
        return len(self._slots)

    def matrices(self, part: int, slot: int) -> dict[str, Matrix]:
        """The matrices of `part` by name, for when it is in `slot`."""
        section = self.parts[part].section
        return {
            entry.name: Matrix(entry.layout, self._slots[slot, start : start + entry.nbytes])
            for entry in section.entries
            if entry.layout
            for start in (entry.offset - section.offset,)
        }

    @contextmanager
    def hold(self, part: int) -> Iterator[int]:
        """The slot that `part` is in, until the context ends. Raises StorageError; the stream then goes on."""
        slot = self._take(part)
        try:
            yield slot
        finally:
            self._free.append(slot)
            self._read_ahead()

    def close(self) -> None:
        """Let the reads that are under way end."""
        while self._ahead:
            self._drop(self._ahead.popleft())

    def _take(self, part: int) -> int:
        # A pass that ended early, or failed, leaves reads of parts that the next pass does not begin with.
        while self._ahead and self._ahead[0].part != part:
            self._drop(self._ahead.popleft())
        if not self._ahead:
            self._next = self._order.index(part)
            self._read_ahead()
        read = self._ahead.popleft()
        self._reader.promote(read.ticket)
        try:
            with self._waiting:
                self._reader.wait(read.ticket)
        except StorageError:
            self._free.append(read.slot)
            raise
        return read.slot

    def _read_ahead(self) -> None:
        while self._free:
            part = self._order[self._next]
            streamed, slot = self.parts[part], self._free.popleft()
            out = self._slots[slot, : streamed.section.nbytes]
            try:
                ticket = self._reader.read(self._file, streamed.section.offset, out, streamed.crc, is_prefetch=True)
            except BaseException:
                self._free.append(slot)
                raise
            self._ahead.append(_Read(part, slot, ticket))
            self._next = (self._next + 1) % len(self._order)

    def _drop(self, read: _Read) -> None:
        if not self._reader.cancel(read.ticket):
            with suppress(StorageError):  # nobody is waiting for it
                self._reader.wait(read.ticket)
        self._free.append(read.slot)
