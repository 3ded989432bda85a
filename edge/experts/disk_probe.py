"""What the disk gives: random reads of whole blocks from a model's own files, past the page cache."""

import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.matrix import aligned_zeros
from edge.kernels import ExpertReader

QUEUE_DEPTHS = (4, 8, 16, 32)  # parts that the disk is asked for at once
PART_BYTES = 1 << 20
READS_AHEAD = 16  # blocks in flight: a queue of parts this long never runs dry
PROBE_SEED = 1  # the same blocks in each run, so that a difference is the disk's


@dataclass(frozen=True, slots=True)
class BlockFiles:
    """Files of equal blocks, such as a pack's experts. Blocks are a multiple of 4096 bytes."""

    paths: tuple[Path, ...]
    block_bytes: int
    blocks_per_file: int


@dataclass(frozen=True, slots=True)
class DiskRoof:
    """The best rate found and how it was reached."""

    bytes_per_second: float
    queue_depth: int
    part_bytes: int


def disk_roof(files: BlockFiles, seconds: float = 2.0, into: NDArray[np.uint8] | None = None) -> DiskRoof:
    """The rate of random O_DIRECT reads of one block's size, at the best of `QUEUE_DEPTHS`.

    Takes about `seconds` and, unless `into` ([N, block_bytes], aligned to 4096, overwritten) is given, memory for
    `READS_AHEAD` blocks. Raises StorageError if a read fails.
    """
    if seconds <= 0:
        raise ValueError(f"seconds is {seconds}, expected above 0")
    if into is None:
        into = aligned_zeros(READS_AHEAD * files.block_bytes, 4096).reshape(READS_AHEAD, files.block_bytes)
    share = seconds / len(QUEUE_DEPTHS)
    return max(
        (DiskRoof(_rate(files, depth, share, into), depth, PART_BYTES) for depth in QUEUE_DEPTHS),
        key=lambda roof: roof.bytes_per_second,
    )


def _rate(files: BlockFiles, depth: int, seconds: float, into: NDArray[np.uint8]) -> float:
    """Bytes per second with as many blocks in flight as `into` holds; the ends, where there are fewer, not counted."""
    places = _places(files)
    with ExpertReader(files.paths, threads=depth) as reader:
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


def _places(files: BlockFiles) -> Iterator[tuple[int, int]]:
    """File and offset of all blocks in random order, over and over."""
    blocks = range(files.blocks_per_file)
    places = [(file, block * files.block_bytes) for file in range(len(files.paths)) for block in blocks]
    random.Random(PROBE_SEED).shuffle(places)  # noqa: S311 no secret
    while True:
        yield from places
