"""How many requests of which size the disk is asked for at once: tried out on the model's own files at start."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import BLOCK_ALIGNMENT
from edge.errors import RequestError

MAX_QUEUE_DEPTH = 32
PROBE_SEED = 1  # the same blocks in each run, so that a difference is the disk's
# Another setting must beat the usual one by this much: the rate of one disk varies by a tenth from burst to burst.
LEAST_GAIN = 1.2


@dataclass(frozen=True, slots=True)
class ReadSetting:
    """At most `queue_depth` requests at once, each of `part_bytes`."""

    queue_depth: int
    part_bytes: int

    def __post_init__(self) -> None:
        if not 1 <= self.queue_depth <= MAX_QUEUE_DEPTH:
            raise RequestError(f"queue_depth is {self.queue_depth}: it must be 1 to {MAX_QUEUE_DEPTH}")
        if self.part_bytes < 1 or self.part_bytes % BLOCK_ALIGNMENT:
            raise RequestError(f"part_bytes is {self.part_bytes}: it must be a multiple of {BLOCK_ALIGNMENT}")


# Beside computing threads fewer and larger requests win by a tenth: each takes CPU from them (edge/EXPERIMENTS.md).
USUAL = ReadSetting(16, 1 << 21)
CANDIDATES = (
    USUAL,
    ReadSetting(32, 1 << 20),
    ReadSetting(8, 1 << 21),
    ReadSetting(32, 1 << 19),
    ReadSetting(16, 1 << 20),
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """The setting in use and why. `bytes_per_second` is 0 where nothing was measured."""

    setting: ReadSetting
    origin: Literal["probe", "stated", "usual"]
    bytes_per_second: float = 0.0


class TunableReader(Protocol):
    """The part of edge.kernels.ExpertReader that a probe needs."""

    def tune(self, queue_depth: int, part_bytes: int) -> None:
        """Use a setting from the next read on."""

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None) -> int:
        """Start a read."""

    def wait(self, ticket: int) -> None:
        """Until it ended. Raises StorageError."""


def probe(
    reader: TunableReader,
    slots: NDArray[np.uint8],
    blocks: Sequence[tuple[int, int]],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Tuning:
    """Read bursts of random `blocks` (file, offset) into `slots` [N, block_bytes], all at once as decoding does.

    The settings take turns until `seconds` are over, so that a slow moment hits all of them. Without a whole round the
    usual one stays. `slots` hold nothing of use before and after. Raises StorageError.
    """
    rng = random.Random(PROBE_SEED)  # noqa: S311 no secret
    rates: dict[ReadSetting, list[float]] = {setting: [] for setting in CANDIDATES}
    deadline = clock() + seconds
    while clock() < deadline:
        for setting in CANDIDATES:
            if clock() >= deadline:
                break
            reader.tune(setting.queue_depth, setting.part_bytes)
            rates[setting].append(_burst_rate(reader, slots, rng.choices(blocks, k=len(slots)), clock))
    return choose(rates)


def choose(rates: Mapping[ReadSetting, Sequence[float]]) -> Tuning:
    """The setting with the best median, if all were measured and it is better than the usual one beyond noise."""
    if not all(rates.values()):
        return Tuning(USUAL, "usual")
    medians = {setting: median(measured) for setting, measured in rates.items()}
    best = max(medians, key=medians.__getitem__)
    if medians[best] < LEAST_GAIN * medians[USUAL]:
        best = USUAL
    return Tuning(best, "probe", medians[best])


def _burst_rate(
    reader: TunableReader, slots: NDArray[np.uint8], blocks: Sequence[tuple[int, int]], clock: Callable[[], float]
) -> float:
    began = clock()
    tickets = [reader.read(file, offset, out, None) for (file, offset), out in zip(blocks, slots, strict=True)]
    for ticket in tickets:
        reader.wait(ticket)
    return slots.nbytes / (clock() - began)
