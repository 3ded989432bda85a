"""What is said of a training."""

from ops.demo.progress import Progress

PROGRESS = Progress(7, 2_000_000, 1.23456, 0.0, 1.0, 0.5, 0.003, 4321.7, 600.0)


def test_the_time_left_goes_by_the_mean_speed_of_all_runs() -> None:
    line = PROGRESS.line(20_000_000)
    assert line == "step 7  2.00M tokens (10.0%)  loss 1.235  4,322 tokens/s  1 h 30 min left"


def test_nothing_is_left_after_the_last_token() -> None:
    assert PROGRESS.line(1_999_999).endswith("0 h 00 min left")


def test_the_log_has_whole_counts_and_short_numbers() -> None:
    event = PROGRESS.event()
    assert event["tokens"] == 2_000_000
    assert event["loss"] == 1.235
