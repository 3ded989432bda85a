"""The roof: the slower of disk and memory at rates measured before and after."""

import numpy as np
import pytest

from edge.bench.roofs import DISK, RAM, SAMPLE_BYTES, Load, RamMeter, Rates, mean, ram_rate, share_of_roof
from edge.checkpoint.matrix import aligned_zeros


@pytest.mark.parametrize(("disk", "ram"), [(0.0, 1.0), (1.0, -1.0), (1.0, float("nan"))])
def test_a_rate_that_is_none_is_refused(disk: float, ram: float) -> None:
    with pytest.raises(ValueError, match="bytes per second is none"):
        Rates(disk, ram)


def test_no_time_has_no_share() -> None:
    with pytest.raises(ValueError, match=r"0\.0 seconds of work are none"):
        share_of_roof(Load(1, 1), 0.0, [Rates(1, 1)])


def test_the_slower_of_disk_and_memory_sets_the_roof() -> None:
    rates = Rates(disk=10, ram=100)
    assert (Load(50, 400).seconds(rates), Load(50, 400).bound(rates)) == (5, DISK)
    assert (Load(50, 600).seconds(rates), Load(50, 600).bound(rates)) == (6, RAM)
    assert Load(0, 600).seconds(rates) == 6


def test_the_share_is_of_the_mean_and_its_range_of_each_measurement() -> None:
    share = share_of_roof(Load(1200, 0), 10.0, [Rates(100, 1), Rates(300, 1)])
    assert (share.share, share.least, share.most, share.bound) == (0.6, 0.4, 1.2, DISK)
    assert mean([Rates(100, 1), Rates(300, 3)]) == Rates(200, 2)


def test_samples_read_memory_that_is_there() -> None:
    meter = RamMeter([np.ones(SAMPLE_BYTES // 4 + 5, np.uint8)[5:], np.ones(SAMPLE_BYTES // 4, np.float32)])
    meter.sample()
    meter.sample()
    meter.close()
    meter.sample()
    assert len(meter.rates) == 2
    assert min(meter.rates) > 0


def test_what_caches_could_hold_is_no_sample() -> None:
    meter = RamMeter([np.ones(SAMPLE_BYTES // 3, np.uint8)])
    meter.sample()
    assert meter.rates == []


def test_ram_is_read_at_least_once_however_little_time_there_is() -> None:
    assert ram_rate(aligned_zeros(3 * 4096).reshape(3, 4096), seconds=0) > 0
