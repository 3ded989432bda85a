"""What the disk gives: random reads of whole experts from a model's own files, past the page cache."""

import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import ExpertLayout
from edge.checkpoint.matrix import aligned_zeros
from edge.config import ModelConfig
from edge.kernels import ExpertReader

QUEUE_DEPTHS = (4, 8, 16, 32)  # parts that the disk is asked for at once
PART_BYTES = 1 << 20
READS_AHEAD = 16  # blocks in flight: a queue of parts this long never runs dry
PROBE_SEED = 1  # the same blocks in each run, so that a difference is the disk's


class ExpertFiles(Protocol):
    """What a pack says of its experts' files."""

    @property
    def expert_paths(self) -> tuple[Path, ...]:
        """One file per layer."""

    @property
    def experts(self) -> ExpertLayout:
        """How each expert is stored."""

    @property
    def config(self) -> ModelConfig:
        """How many there are."""


@dataclass(frozen=True, slots=True)
class DiskRoof:
    """The best rate found and how it was reached."""

    bytes_per_second: float
    queue_depth: int
    part_bytes: int


def disk_roof(pack: ExpertFiles, seconds: float = 2.0, into: NDArray[np.uint8] | None = None) -> DiskRoof:
    """The rate of random O_DIRECT reads of one expert's size, at the best of `QUEUE_DEPTHS`.

    Takes about `seconds` and, unless `into` ([N, block_bytes], aligned to 4096, overwritten) is given, memory for
    `READS_AHEAD` blocks. Raises StorageError if a read fails.
    """
    if seconds <= 0:
        raise ValueError(f"seconds is {seconds}, expected above 0")
    if into is None:
        block = pack.experts.block_bytes
        into = aligned_zeros(READS_AHEAD * block, 4096).reshape(READS_AHEAD, block)
    share = seconds / len(QUEUE_DEPTHS)
    return max(
        (DiskRoof(_rate(pack, depth, share, into), depth, PART_BYTES) for depth in QUEUE_DEPTHS),
        key=lambda roof: roof.bytes_per_second,
    )


def _rate(pack: ExpertFiles, depth: int, seconds: float, into: NDArray[np.uint8]) -> float:
    """Bytes per second with as many blocks in flight as `into` holds; the ends, where there are fewer, not counted."""
    places = _places(pack)
    with ExpertReader(pack.expert_paths, threads=depth) as reader:
        in_flight = deque((reader.read(*next(places), out, None), out) for out in into)

        def turn_over() -> None:
            ticket, out = in_flight.popleft()
            reader.wait(ticket)
            in_flight.append((reader.read(*next(places), out, None), out))

        turn_over()
        began, before = time.perf_counter(), reader.bytes_read
        while (spent := time.perf_counter() - began) < seconds:
            turn_over()
        rate = (reader.bytes_read - before) / spent
        for ticket, _ in in_flight:
            reader.wait(ticket)
    return rate


def _places(pack: ExpertFiles) -> Iterator[tuple[int, int]]:
    """File and offset of all experts in random order, over and over."""
    experts = range(pack.config.num_experts)
    places = [(layer, e * pack.experts.block_bytes) for layer in range(len(pack.expert_paths)) for e in experts]
    random.Random(PROBE_SEED).shuffle(places)  # noqa: S311 no secret
    while True:
        yield from places
