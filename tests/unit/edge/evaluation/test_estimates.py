"""Intervals against figures worked out elsewhere, and where samples are small or unanimous."""

import math

import pytest

from edge.evaluation.estimates import Share, mean_per_token


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson(count: int, total: int, low: float, high: float) -> None:
    assert Share(count, total).interval == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("count", "total"), [(8, 10), (950, 1000), (1, 2)])
def test_an_end_is_where_the_share_lies_two_standard_errors_away(count: int, total: int) -> None:
    share = Share(count, total)
    for end in share.interval:
        assert abs(share.value - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / total), rel=1e-6)


def test_an_interval_holds_its_share() -> None:
    for total in (1, 2, 7, 333):
        for count in range(total + 1):
            low, high = Share(count, total).interval
            assert 0 <= low <= count / total <= high <= 1


def test_passages_of_one_length_have_the_usual_error_of_a_mean() -> None:
    sums = [2.0, 4.0, 9.0, 5.0]
    mean = mean_per_token(sums, [1, 1, 1, 1])
    assert mean.value == 5
    assert mean.error == pytest.approx(1.959964 * math.sqrt(26 / 3 / 4))


def test_long_passages_count_by_their_tokens() -> None:
    assert mean_per_token([10.0, 1.0], [10, 1]).value == 1
    assert mean_per_token([10.0, 1.0], [10, 1]).error == 0
    assert mean_per_token([3.0], [2]) == mean_per_token([3.0], [2])
    assert math.isinf(mean_per_token([3.0], [2]).error)
