"""The circuit: when a backend is left alone, and how it comes back."""

import pytest

from router.resilience.circuit import Circuit, CircuitLimits

LIMITS = CircuitLimits(failures_to_open=3, open_s=5.0, probe_s=60.0)


@pytest.fixture
def circuit() -> Circuit:
    return Circuit(LIMITS)


def fail(circuit: Circuit, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        circuit.started(now)
        circuit.failed(now)


def test_opens_only_after_failures_in_a_row(circuit: Circuit) -> None:
    fail(circuit, 2)
    circuit.succeeded(0.0)
    fail(circuit, 2)
    assert not circuit.is_closed_to_requests(0.0)
    fail(circuit, 1)
    assert circuit.is_closed_to_requests(0.0)


def test_lets_one_probe_through_after_a_while(circuit: Circuit) -> None:
    fail(circuit, 3)
    assert circuit.is_closed_to_requests(4.9)
    assert not circuit.is_closed_to_requests(5.0)
    circuit.started(5.0)
    assert circuit.is_closed_to_requests(5.0)


def test_failed_probe_opens_it_again(circuit: Circuit) -> None:
    fail(circuit, 3)
    circuit.started(5.0)
    circuit.failed(6.0)
    assert circuit.is_closed_to_requests(10.9)
    assert not circuit.is_closed_to_requests(11.0)


def test_answered_probe_closes_it_to_nobody(circuit: Circuit) -> None:
    fail(circuit, 3)
    circuit.started(5.0)
    circuit.answered()
    assert not circuit.is_closed_to_requests(5.0)


def test_answers_that_break_off_keep_counting(circuit: Circuit) -> None:
    """A server that sends a first text and then dies, every time, is not healthy."""
    for _ in range(3):
        circuit.started(0.0)
        circuit.answered()
        circuit.failed(0.0)
    assert circuit.is_closed_to_requests(0.0)


def test_probe_whose_caller_left_hands_the_probe_on(circuit: Circuit) -> None:
    fail(circuit, 3)
    circuit.started(5.0)
    circuit.undecided(5.5)
    assert not circuit.is_closed_to_requests(5.5)


def test_probe_that_takes_too_long_does_not_close_the_backend_for_good(circuit: Circuit) -> None:
    fail(circuit, 3)
    circuit.started(5.0)
    assert circuit.is_closed_to_requests(64.9)
    assert not circuit.is_closed_to_requests(65.0)


def test_undecided_requests_change_nothing_on_a_healthy_backend(circuit: Circuit) -> None:
    for _ in range(10):
        circuit.started(0.0)
        circuit.undecided(0.0)
    assert not circuit.is_closed_to_requests(0.0)
