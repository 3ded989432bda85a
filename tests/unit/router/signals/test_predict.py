"""Predictions of the edge's times."""

import math
from typing import Any

import pytest

from router.privacy.reach import Reach
from router.request import BackendState, GenerationRequest, Message
from router.signals.features import Features, features_of
from router.signals.predict import Bounds, Prediction, expect, predict, prompt_tokens


def edge(**fields: Any) -> BackendState:
    return BackendState(name="edge", lane="edge", reach=Reach.DEVICE, available=True, **fields)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf, 1e-308])
@pytest.mark.parametrize("which", ["prefill_tokens_per_second", "decode_tokens_per_second"])
def test_without_both_rates_nothing_is_predicted(which: str, rate: float) -> None:
    rates = {"prefill_tokens_per_second": 100.0, "decode_tokens_per_second": 10.0, which: rate}
    assert predict(edge(**rates), 100, 10) == Prediction(None, None)


def test_queue_prompt_and_one_step_come_before_the_first_token() -> None:
    state = edge(
        pending_prompt_tokens=300,
        steps_until_place=50,
        prefill_tokens_per_second=100.0,
        decode_tokens_per_second=10.0,
    )
    prediction = predict(state, num_prompt_tokens=200, max_tokens=11)
    assert prediction.ttft_s == pytest.approx(3 + 5 + 2 + 0.1)
    assert prediction.total_s == pytest.approx(10.1 + 1)


def test_answers_that_run_beside_it_delay_a_request_only_by_their_share_of_the_rate() -> None:
    state = edge(running=7, prefill_tokens_per_second=100.0, decode_tokens_per_second=2.5)
    prediction = predict(state, num_prompt_tokens=100, max_tokens=11)
    assert prediction.ttft_s == pytest.approx(1.4)
    assert prediction.total_s == pytest.approx(5.4)


def test_a_prompt_has_a_base_time_however_short_it_is() -> None:
    state = edge(prompt_base_s=0.5, prefill_tokens_per_second=200.0, decode_tokens_per_second=10.0)
    assert predict(state, num_prompt_tokens=10, max_tokens=1).ttft_s == pytest.approx(0.5 + 0.05 + 0.1)
    assert predict(state, num_prompt_tokens=1000, max_tokens=1).ttft_s == pytest.approx(0.5 + 5 + 0.1)


@pytest.mark.parametrize(
    "nonsense",
    [{"steps_until_place": 2**64 - 1}, {"pending_prompt_tokens": 2**64 - 1}, {"prompt_base_s": 3e11}],
)
def test_a_servers_nonsense_is_late_and_still_a_duration(nonsense: dict[str, float]) -> None:
    prediction = predict(edge(prefill_tokens_per_second=1e-6, decode_tokens_per_second=1e-6, **nonsense), 10, 10)
    assert prediction == Prediction(1e9, 1e9)


def test_a_base_below_zero_makes_nothing_sooner() -> None:
    state = edge(prompt_base_s=-100.0, prefill_tokens_per_second=100.0, decode_tokens_per_second=10.0)
    assert predict(state, num_prompt_tokens=100, max_tokens=1).ttft_s == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("rates", "ttft_s"),
    [
        ({}, 40 / 20 + 1),
        ({"prefill_tokens_per_second": 40.0}, 1 + 1),
        ({"decode_tokens_per_second": 10.0}, 2 + 0.1),
        ({"prefill_tokens_per_second": 40.0, "decode_tokens_per_second": 10.0}, 1 + 0.1),
    ],
)
def test_what_is_not_measured_is_expected_to_be_slow(rates: dict[str, float], ttft_s: float) -> None:
    assert expect(edge(**rates), 40, 3).ttft_s == pytest.approx(ttft_s)


@pytest.mark.parametrize(
    ("bounds", "holds"),
    [
        (Bounds(), True),
        (Bounds(ttft_s=1.0), True),
        (Bounds(ttft_s=0.999), False),
        (Bounds(total_s=5.0), True),
        (Bounds(ttft_s=1.0, total_s=4.9), False),
    ],
)
def test_both_bounds_must_hold(bounds: Bounds, holds: bool) -> None:
    assert bounds.hold(Prediction(ttft_s=1.0, total_s=5.0)) is holds


def test_what_is_unknown_promises_nothing() -> None:
    assert Bounds().hold(Prediction(None, None))
    assert not Bounds(ttft_s=1e9).hold(Prediction(None, None))
    assert not Bounds(total_s=1e9).hold(Prediction(None, None))


@pytest.mark.parametrize(("measured", "tokens"), [(0.0, 3), (2.5, 4), (math.nan, 3), (-1.0, 3), (1e-300, 3)])
def test_prompt_tokens_come_from_bytes(measured: float, tokens: int) -> None:
    assert prompt_tokens(10, edge(prompt_bytes_per_token=measured)) == tokens


def test_features_count_bytes_of_utf8_and_messages() -> None:
    request = GenerationRequest(messages=(Message("user", "héé"), Message("user", "\ud800")))
    assert features_of(request) == Features(prompt_bytes=8, num_messages=2)
