"""The probe at start: it measures every setting alike, and without a clear winner the usual one stays."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import RequestError, StorageError
from edge.experts.tuning import CANDIDATES, LEAST_GAIN, USUAL, ReadSetting, choose, probe

BEST = CANDIDATES[-1]
SLOTS = np.zeros((3, 4096), np.uint8)
BLOCKS = [(0, 4096 * block) for block in range(50)]


class Disk:
    """Time passes only while it reads: a second per read, less by `gain` at the best setting."""

    def __init__(self, gain: float) -> None:
        self.now = 0.0
        self.gain = gain
        self.setting = USUAL
        self.offsets: dict[ReadSetting, list[int]] = {}
        self.is_broken = False

    def tune(self, queue_depth: int, part_bytes: int) -> None:
        self.setting = ReadSetting(queue_depth, part_bytes)

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None) -> int:
        self.offsets.setdefault(self.setting, []).append(offset)
        return 1

    def wait(self, ticket: int) -> None:
        if self.is_broken:
            raise StorageError("broken")
        self.now += 1 / self.gain if self.setting == BEST else 1.0

    def clock(self) -> float:
        return self.now


def probed(disk: Disk, seconds: float) -> ReadSetting:
    return probe(disk, SLOTS, BLOCKS, seconds, disk.clock).setting


@pytest.mark.parametrize(
    ("depth", "part", "message"),
    [(0, 4096, "queue_depth is 0"), (33, 4096, "queue_depth is 33"), (1, 0, "part_bytes is 0"), (1, 5000, "is 5000")],
)
def test_a_setting_that_no_reader_has_is_refused(depth: int, part: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ReadSetting(depth, part)


def test_a_clear_winner_is_chosen() -> None:
    assert probed(Disk(gain=1.3), 100) == BEST


def test_a_small_gain_changes_nothing() -> None:
    assert probed(Disk(gain=LEAST_GAIN - 0.01), 100) == USUAL


@pytest.mark.parametrize("seconds", [0, 4])
def test_without_a_whole_round_the_usual_setting_stays(seconds: float) -> None:
    disk = Disk(gain=5)
    tuning = probe(disk, SLOTS, BLOCKS, seconds, disk.clock)
    assert (tuning.setting, tuning.origin, tuning.bytes_per_second) == (USUAL, "usual", 0.0)
    assert disk.now <= seconds + len(SLOTS)


def test_settings_take_turns_and_the_same_blocks_come_each_time() -> None:
    disks = [Disk(gain=1.5), Disk(gain=1.5)]
    for disk in disks:
        probed(disk, 40)
    assert disks[0].offsets == disks[1].offsets
    counts = [len(offsets) for offsets in disks[0].offsets.values()]
    assert max(counts) - min(counts) <= len(SLOTS)


def test_a_failed_read_is_an_error() -> None:
    disk = Disk(gain=1)
    disk.is_broken = True
    with pytest.raises(StorageError, match="broken"):
        probed(disk, 10)


def test_one_slow_burst_does_not_decide() -> None:
    rates = {setting: [100.0, 100.0, 1.0] for setting in CANDIDATES}
    rates[BEST] = [1.0, 150.0, 150.0]
    tuning = choose(rates)
    assert (tuning.setting, tuning.bytes_per_second) == (BEST, 150.0)
