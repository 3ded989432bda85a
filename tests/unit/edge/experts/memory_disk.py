"""A reader over nothing but memory whose every read ends, or fails, when the test says so."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.errors import StorageError
from edge.kernels import ReadCounters

LAYOUT = ExpertLayout(MatrixLayout(Format.F32, 3, 5), MatrixLayout(Format.F32, 3, 5), MatrixLayout(Format.F32, 5, 3))

Place = tuple[int, int]  # layer and expert
ABANDONED = 255  # what fills a block that was not read to its end


@dataclass
class Index:
    """A pack of which only the experts are asked for."""

    experts: ExpertLayout = LAYOUT

    def expert_crc(self, layer: int, expert: int) -> int:
        return 100 * layer + expert


@dataclass
class Read:
    """One read under way."""

    place: Place
    out: NDArray[np.uint8]
    is_prefetch: bool
    is_abandoned: bool = False


class MemoryDisk:
    """The block of (layer, expert) is full of 10 * layer + expert, and written only when waited for.

    All places in `done` have ended, the others end when somebody waits for them. Of those in `begun` a part is read
    already and one under way, of those in `all_begun` every part is.
    """

    def __init__(self) -> None:
        self.started: list[Place] = []
        self.prefetched: list[Place] = []
        self.promoted: list[Place] = []
        self.cancelled: list[Place] = []
        self.abandoned: list[Place] = []
        self.crcs: list[int | None] = []
        self.broken: set[Place] = set()
        self.refused: set[Place] = set()
        self.begun: set[Place] = set()
        self.all_begun: set[Place] = set()
        self.done: set[Place] = set()
        self.open: dict[int, Read] = {}
        self.demand_seconds = 0.0
        self.is_closed = False
        self._bytes_read = self._abandoned_bytes = 0
        self._last_ticket = 0

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None, *, is_prefetch: bool) -> int:
        assert offset % out.nbytes == 0
        assert out.ctypes.data % 4096 == 0
        place = (file, offset // out.nbytes)
        if place in self.refused:
            raise OSError("no more requests")
        (self.prefetched if is_prefetch else self.started).append(place)
        self.crcs.append(crc)
        self._last_ticket += 1
        self.open[self._last_ticket] = Read(place, out, is_prefetch)
        return self._last_ticket

    def wait(self, ticket: int) -> None:
        read = self.open.pop(ticket)
        layer, expert = read.place
        if read.is_abandoned:
            read.out.fill(ABANDONED)
            self._abandoned_bytes += read.out.nbytes // 2
            return
        if read.place in self.broken:
            raise StorageError(f"layer {layer} expert {expert} is broken")
        read.out.fill(10 * layer + expert)
        self._bytes_read += read.out.nbytes

    def wait_any(self, tickets: Sequence[int]) -> list[int]:
        assert tickets
        return [ticket for ticket in tickets if self.is_done(ticket)] or [tickets[0]]

    def is_done(self, ticket: int) -> bool:
        return self.open[ticket].place in self.done

    def promote(self, ticket: int) -> None:
        self.promoted.append(self.open[ticket].place)

    def cancel(self, ticket: int) -> bool:
        place = self.open[ticket].place
        if place in self.begun | self.all_begun | self.done:
            return False
        self.cancelled.append(place)
        del self.open[ticket]
        return True

    def abandon(self, ticket: int) -> bool:
        read = self.open[ticket]
        if read.place in self.all_begun | self.done:
            return False
        self.abandoned.append(read.place)
        read.is_abandoned = True
        return True

    def counters(self) -> ReadCounters:
        return ReadCounters(self._bytes_read, demand_seconds=self.demand_seconds, abandoned_bytes=self._abandoned_bytes)

    def close(self) -> None:
        self.is_closed = True
