"""The gate: finds the better kind of pass, tries the other one ever more seldom, and needs no clock for it."""

from collections.abc import Callable, Iterator
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.speculation.gate import FIRST_REST, LONGEST_REST, TRIAL_PASSES, CostGate

Cost = Callable[[bool], tuple[int, float]]  # tokens and seconds of a pass with guesses, or without


def passes(gate: CostGate, cost: Cost, num_sequences: int = 1) -> Iterator[bool]:
    """Whether each pass in turn has guesses."""
    while True:
        is_drafted = gate.wants(num_sequences)
        gate.took(num_sequences, *cost(is_drafted), is_drafted=is_drafted)
        yield is_drafted


def paying(is_drafted: bool) -> tuple[int, float]:
    return (2, 1.5) if is_drafted else (1, 1.0)


def losing(is_drafted: bool) -> tuple[int, float]:
    return (1, 1.5) if is_drafted else (1, 1.0)


def test_it_begins_with_both_kinds_in_turn() -> None:
    first = list(islice(passes(CostGate(), paying), TRIAL_PASSES))
    assert first == [True, False] * (TRIAL_PASSES // 2)


@pytest.mark.parametrize(("cost", "is_on"), [(paying, True), (losing, False)])
def test_the_better_kind_then_has_the_field(cost: Cost, is_on: bool) -> None:
    gate = CostGate()
    kinds = passes(gate, cost)
    list(islice(kinds, TRIAL_PASSES))
    assert list(islice(kinds, FIRST_REST)) == [is_on] * FIRST_REST


def test_a_draw_goes_to_fewer_computations() -> None:
    kinds = passes(CostGate(), lambda is_drafted: (2, 1.98) if is_drafted else (1, 1.0))
    list(islice(kinds, TRIAL_PASSES))
    assert not any(islice(kinds, FIRST_REST))


def test_trials_become_rare_but_never_end() -> None:
    kinds = list(islice(passes(CostGate(), losing), 20 * LONGEST_REST))
    tried = [number for number, is_drafted in enumerate(kinds) if is_drafted]
    assert sum(kinds[-10 * LONGEST_REST :]) <= 11 * TRIAL_PASSES // 2
    assert tried[-1] > len(kinds) - 2 * LONGEST_REST


@pytest.mark.parametrize(("before", "after"), [(paying, losing), (losing, paying)])
def test_it_changes_its_mind_when_the_costs_do(before: Cost, after: Cost) -> None:
    gate = CostGate()
    list(islice(passes(gate, before), 1000))
    kinds = list(islice(passes(gate, after), 8 * LONGEST_REST))
    assert sum(kinds[-LONGEST_REST:]) / LONGEST_REST == pytest.approx(float(after is paying), abs=0.05)


def test_each_number_of_sequences_has_an_answer_of_its_own() -> None:
    gate = CostGate()
    list(islice(passes(gate, paying, 1), 2 * TRIAL_PASSES))
    list(islice(passes(gate, losing, 5), 2 * TRIAL_PASSES))
    assert (gate.wants(1), gate.wants(5)) == (True, False)


def test_a_pass_that_should_have_had_guesses_and_had_none_counts_as_plain() -> None:
    gate = CostGate()
    for _ in range(50 * TRIAL_PASSES):  # nothing can be read, or every answer is at its last token
        assert gate.wants(1)
        gate.took(1, 1, 1.0, is_drafted=False)


def test_a_pass_that_took_no_time_breaks_nothing() -> None:
    gate = CostGate()
    list(islice(passes(gate, lambda _: (0, 0.0)), 1000))
    assert not gate.wants(1)


@given(speed_up=st.floats(1.1, 2.0), noise=st.lists(st.floats(0.97, 1.03), min_size=64, max_size=64))
def test_noise_smaller_than_the_gain_changes_nothing(speed_up: float, noise: list[float]) -> None:
    gate, count = CostGate(), 0

    def cost(is_drafted: bool) -> tuple[int, float]:
        nonlocal count
        count += 1
        return (2, noise[count % 64] * 2 / speed_up) if is_drafted else (1, noise[count % 64])

    kinds = list(islice(passes(gate, cost), 2000))
    assert sum(kinds) >= 2000 * 0.9
