import pytest

from edge.server.pipe import Counters
from edge.server.rates import Rate, Rates


def test_a_rate_is_zero_before_anything_was_measured() -> None:
    assert Rate(60).value == 0.0


def test_an_instant_teaches_nothing() -> None:
    rate = Rate(60)
    rate.add(5, 0.0)
    assert rate.value == 0.0


def test_the_first_measurement_counts_fully() -> None:
    rate = Rate(60)
    rate.add(10, 2.0)
    assert rate.value == 5.0


def test_a_measurement_counts_half_after_its_half_life() -> None:
    rate = Rate(10.0)
    rate.add(100, 10.0)
    rate.add(0, 10.0)
    assert rate.value == pytest.approx(50 / 15)


def test_many_small_measurements_forget_like_one_large() -> None:
    rate = Rate(10.0)
    rate.add(1000, 10.0)
    for _ in range(1000):
        rate.add(0.2, 0.1)
    assert rate.value == pytest.approx(2.0, rel=0.1)


def test_no_time_is_estimated_before_both_rates_are_known() -> None:
    rates = Rates()
    rates.prefill.add(100, 1.0)
    assert rates.seconds_for(100, 10) is None
    rates.decode.add(2, 1.0)
    assert rates.seconds_for(100, 10) == 6.0
    rates.prefill.add(1, 0.505)
    assert rates.seconds_for(100, 10) == pytest.approx(6.0)


def test_counters_feed_hit_rate_and_disk_rate() -> None:
    rates = Rates()
    rates.add_counters(Counters(0, 0, 0, 0.0))
    rates.add_counters(Counters(3, 4, 4096, 0.5))
    assert (rates.hits.value, rates.disk.value) == (0.75, 8192.0)
