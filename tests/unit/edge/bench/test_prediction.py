"""The read model: what overlaps, what waits, and what a cache of some size would hold."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.bench.prediction import GUESSED_RATE, Costs, Routing, binomial, layer_wait, predict, routing_of, uniform
from edge.profiling import ATTENTION, HEAD, SHARED_EXPERT

COSTS = Costs({ATTENTION: 2.0, SHARED_EXPERT: 4.0}, expert_seconds=0.5)


@pytest.mark.parametrize(("lookups", "hit_rate"), [(-1.0, 0.5), (3.0, 1.5), (3.0, float("nan"))])
def test_routing_out_of_range_is_refused(lookups: float, hit_rate: float) -> None:
    with pytest.raises(ValueError, match="look-ups with a hit rate"):
        Routing(lookups, hit_rate)


def test_a_recall_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a recall of 1\.5"):
        Routing(3.0, 0.5, recall=1.5)


def test_right_guesses_use_the_time_in_which_the_disk_would_idle() -> None:
    def wait(recall: float, disk_rate: float) -> float:
        routing = Routing(2, 0.0, recall)
        return predict(COSTS, routing, num_layers=2, block_bytes=10, disk_rate=disk_rate).wait_seconds

    # Of a layer 1 second is neither shared expert nor routed ones; its reads take 10. The first layer has no guess.
    assert wait(0.0, 2.0) - wait(0.5, 2.0) == pytest.approx(GUESSED_RATE * 1)
    # Of 10 seconds of reads no more than the right guesses can be done before.
    assert wait(0.0, 2.0) - wait(0.02, 2.0) == pytest.approx(0.02 * 10)
    # A disk that delivers in time leaves nothing to gain.
    assert wait(1.0, 1000.0) == 0


def test_no_guess_can_be_made_while_the_head_computes() -> None:
    costs = Costs({HEAD: 6.0}, expert_seconds=0.5)
    waits = [
        predict(costs, Routing(2, 0.0, recall), num_layers=2, block_bytes=10, disk_rate=2.0).wait_seconds
        for recall in (0.0, 1.0)
    ]
    assert waits[0] == waits[1]


def test_with_all_in_ram_a_pass_takes_its_computation() -> None:
    pass_ = predict(COSTS, Routing(3, 1.0), num_layers=2, block_bytes=10, disk_rate=1.0)
    assert (pass_.seconds, pass_.wait_seconds, pass_.disk_bytes) == (2 + 4 + 2 * 3 * 0.5, 0, 0)


def test_with_nothing_in_ram_each_read_is_waited_for_and_the_last_expert_computed_after_it() -> None:
    # Two experts of 5 seconds each: the shared expert's 2 seconds and the first expert hide behind the reads.
    pass_ = predict(COSTS, Routing(2, 0.0), num_layers=2, block_bytes=10, disk_rate=2.0)
    assert pass_.disk_bytes == 40
    assert pass_.seconds == 2 + 2 * (2 * 5 + 0.5)


@pytest.mark.parametrize(
    ("missing", "read", "wait"),
    [
        (0, 9.0, 0.0),
        (1, 9.0, 9 - 1 - 3 * 0.5),  # what is there takes 2.5
        (4, 0.25, 0.0),  # arrives while the shared expert is computed
        (2, 3.0, (3 - 2) + (6 - 3.5)),  # between the arrivals one expert is computed
    ],
)
def test_what_is_there_is_computed_while_the_rest_arrives(missing: int, read: float, wait: float) -> None:
    assert layer_wait(4, missing, shared=1.0, expert=0.5, read=read) == wait


def test_layers_that_stream_take_no_less_than_their_bytes() -> None:
    def seconds(streamed_bytes: int) -> float:
        routing = Routing(0, 1.0)
        return predict(
            COSTS, routing, num_layers=2, block_bytes=0, disk_rate=10.0, streamed_bytes=streamed_bytes
        ).seconds

    assert (seconds(50), seconds(90)) == (6, 9)  # computing takes 6


@given(st.integers(0, 40), st.floats(0, 1))
def test_chances_sum_to_one_and_have_the_mean_that_is_expected(count: int, chance: float) -> None:
    chances = binomial(count, chance)
    assert math.isclose(sum(chances), 1)
    assert math.isclose(sum(k * c for k, c in enumerate(chances)), count * chance, abs_tol=1e-9)


@given(st.floats(0, 1), st.floats(1e3, 1e12), st.integers(1, 12))
def test_a_faster_disk_or_a_fuller_cache_is_never_slower(hit_rate: float, disk: float, lookups: int) -> None:
    def seconds(rate: float, hits: float) -> float:
        routing = Routing(lookups, hits)
        return predict(COSTS, routing, num_layers=3, block_bytes=10_000, disk_rate=rate).seconds

    assert seconds(2 * disk, hit_rate) <= seconds(disk, hit_rate) * (1 + 1e-9)
    assert seconds(disk, min(1, hit_rate + 0.1)) <= seconds(disk, hit_rate) * (1 + 1e-9)


def test_uniform_routing_hits_as_often_as_there_are_slots() -> None:
    routing = routing_of(uniform(100, 10), tokens=1, slots=25)
    assert routing.lookups == pytest.approx(10)
    assert routing.hit_rate == pytest.approx(0.25)
    assert routing_of(uniform(100, 10), tokens=1, slots=25.5).hit_rate == pytest.approx(0.255)


def test_several_tokens_share_experts() -> None:
    assert routing_of(uniform(100, 10), tokens=2, slots=0).lookups == pytest.approx(100 * (1 - 0.9**2))
    assert routing_of(uniform(10, 10), tokens=5, slots=0).lookups == 10


def test_the_most_frequent_experts_are_the_ones_in_ram() -> None:
    routing = routing_of([0.9, 0.6, 0.3, 0.2], tokens=1, slots=2)
    assert routing.hit_rate == pytest.approx(0.75)
    assert routing.misses == pytest.approx(0.5)
    assert routing_of([0.9, 0.6], tokens=1, slots=7).hit_rate == 1
