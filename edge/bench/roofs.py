"""What the machine allows: rates of disk and memory, and the time that a forward pass cannot go below."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge import kernels

DISK, RAM = "disk", "RAM"
RAM_SECONDS = 0.5
SAMPLE_BYTES = 256 * 1024**2  # far more than a CPU's caches hold, read in a few milliseconds
LINE_BYTES = 64


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second."""

    disk: float
    ram: float

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"a rate of {name} of {getattr(self, name)} bytes per second is none")


@dataclass(frozen=True, slots=True)
class Load:
    """What some work had to read, in bytes: from disk, and weights from RAM."""

    disk_bytes: float
    ram_bytes: float

    def seconds(self, rates: Rates) -> float:
        """The roof: the least time at these rates, disk and memory at work side by side."""
        return max(self._each(rates).values())

    def bound(self, rates: Rates) -> str:
        """What sets it: DISK or RAM."""
        each = self._each(rates)
        return max(each, key=each.__getitem__)

    def _each(self, rates: Rates) -> dict[str, float]:
        return {DISK: self.disk_bytes / rates.disk, RAM: self.ram_bytes / rates.ram}


@dataclass(frozen=True, slots=True)
class Share:
    """The part of the roof that was reached: 1 is all of it."""

    share: float  # of the mean of the rates measured
    least: float  # of the best of them
    most: float  # of the worst
    bound: str


def share_of_roof(load: Load, seconds: float, measured: Sequence[Rates], typical: Rates | None = None) -> Share:
    """Compare `seconds` with the roof at `typical` rates (None: the mean of those measured) and at each of `measured`.

    The roof moves, for others use the machine too.
    """
    if seconds <= 0:
        raise ValueError(f"{seconds} seconds of work are none to compare")
    rates = typical or mean(measured)
    shares = [load.seconds(each) / seconds for each in measured]
    return Share(load.seconds(rates) / seconds, min(shares), max(shares), load.bound(rates))


def mean(measured: Sequence[Rates]) -> Rates:
    """Of each rate."""
    return Rates(sum(r.disk for r in measured) / len(measured), sum(r.ram for r in measured) / len(measured))


class RamMeter:
    """RAM's rate, sampled again and again: on a machine that others use too it can double or halve within seconds."""

    def __init__(self, arrays: Sequence[NDArray[np.generic]]) -> None:
        """A sample reads SAMPLE_BYTES of `arrays`, memory that is there anyway; of less memory none is taken."""
        self.rates: list[float] = []  # bytes per second
        self._pieces: list[NDArray[np.uint8]] = []
        left = SAMPLE_BYTES
        for array in sorted(arrays, key=lambda array: -array.nbytes):
            flat = array.reshape(-1).view(np.uint8)
            lines = flat[-flat.ctypes.data % LINE_BYTES :][:left]
            self._pieces.append(lines[: len(lines) // LINE_BYTES * LINE_BYTES])
            left -= self._pieces[-1].nbytes
        if left > SAMPLE_BYTES // 2:
            self._pieces = []

    def sample(self) -> None:
        """Take one."""
        if not self._pieces:
            return
        began = time.perf_counter()
        for piece in self._pieces:
            kernels.read_ram(piece)
        self.rates.append(sum(piece.nbytes for piece in self._pieces) / (time.perf_counter() - began))

    def close(self) -> None:
        """Let go of the memory."""
        self._pieces = []


def ram_rate(memory: NDArray[np.uint8], seconds: float = RAM_SECONDS) -> float:
    """Bytes per second at which the kernels' threads read `memory`, again and again for `seconds`.

    `memory` has to be filled, and larger than the CPU's caches, or the figure is theirs.
    """
    flat = memory.reshape(-1)
    began, rounds = time.perf_counter(), 0
    while (spent := time.perf_counter() - began) < seconds or not rounds:
        kernels.read_ram(flat)
        rounds += 1
    return rounds * flat.nbytes / spent
