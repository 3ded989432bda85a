"""Who gets a place and what each pass computes, with made-up times for the passes."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.scheduler import Plan, Scheduler

CHUNK = 100


def make(*, num_places: int = 4, kv_tokens: int = 10_000, shared_chunk: int = CHUNK) -> Scheduler:
    return Scheduler(num_places=num_places, kv_tokens=kv_tokens, chunk_tokens=CHUNK, shared_chunk_tokens=shared_chunk)


def run(scheduler: Scheduler, seconds: float = 1.0) -> Plan:
    """One pass that computes what was planned."""
    plan = scheduler.plan()
    for job, tokens in plan.prompts.items():
        scheduler.advance(job, tokens)
    scheduler.ran(plan, seconds)
    return plan


def test_without_requests_there_is_nothing_to_compute() -> None:
    assert not make().plan()


def test_places_go_in_order_of_arrival() -> None:
    scheduler = make(num_places=2)
    for job in (5, 3, 9):
        scheduler.submit(job, 10, 20)
    assert scheduler.admit() == [5, 3]
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 1)
    scheduler.remove(5)
    assert scheduler.admit() == [9]


def test_a_request_that_needs_much_memory_is_not_overtaken_by_small_ones() -> None:
    scheduler = make(kv_tokens=100)
    scheduler.submit(1, 10, 60)
    scheduler.submit(2, 10, 90)
    scheduler.submit(3, 10, 20)
    assert scheduler.admit() == [1]
    assert scheduler.admit() == []
    scheduler.remove(1)
    assert scheduler.admit() == [2]
    scheduler.remove(2)
    assert scheduler.admit() == [3]


def test_a_waiting_request_can_leave() -> None:
    scheduler = make(num_places=1)
    for job in (1, 2, 3):
        scheduler.submit(job, 10, 20)
    scheduler.admit()
    scheduler.remove(2)
    scheduler.remove(1)
    assert scheduler.admit() == [3]


def test_all_that_decode_share_a_pass() -> None:
    scheduler = make()
    for job in (1, 2, 3):
        scheduler.submit(job, 10, 20)
    scheduler.admit()
    assert run(scheduler) == Plan((), {1: 10, 2: 10, 3: 10})
    assert run(scheduler) == Plan((1, 2, 3), {})


def test_a_chunk_is_dealt_out_so_that_short_prompts_do_not_wait_for_long_ones() -> None:
    scheduler = make()
    for job, prompt in ((1, 1000), (2, 5), (3, 500)):
        scheduler.submit(job, prompt, prompt)
    scheduler.admit()
    plan = run(scheduler)
    assert sum(plan.prompts.values()) == CHUNK
    assert plan.prompts[2] == 5
    assert abs(plan.prompts[1] - plan.prompts[3]) <= 1


def test_more_prompts_than_tokens_of_a_chunk_all_come_through() -> None:
    scheduler = Scheduler(num_places=5, kv_tokens=1000, chunk_tokens=2, shared_chunk_tokens=2)
    for job in range(5):
        scheduler.submit(job, 3, 10)
    scheduler.admit()
    assert sum(sum(run(scheduler).prompts.values()) for _ in range(20)) == 15
    assert len(scheduler.plan().decoding) == 5


def test_a_chunk_beside_decoding_is_the_shorter_one() -> None:
    scheduler = make(shared_chunk=30)
    scheduler.submit(1, 5, 20)
    scheduler.admit()
    run(scheduler)
    scheduler.submit(2, 80, 100)
    scheduler.admit()
    assert run(scheduler) == Plan((1,), {2: 30})


def test_a_long_pass_for_prompts_is_followed_by_as_much_time_for_those_who_decode() -> None:
    scheduler = make()
    scheduler.submit(1, 10, 500)
    scheduler.admit()
    run(scheduler)
    scheduler.submit(2, 1000, 1500)
    scheduler.admit()
    assert run(scheduler, seconds=8.0) == Plan((1,), {2: CHUNK})
    assert [run(scheduler, seconds=2.0).prompts for _ in range(4)] == [{}] * 4
    assert run(scheduler, seconds=8.0) == Plan((1,), {2: CHUNK})


def test_when_nobody_decodes_any_more_a_prompt_goes_on_at_once() -> None:
    scheduler = make()
    scheduler.submit(1, 10, 500)
    scheduler.admit()
    run(scheduler)
    scheduler.submit(2, 1000, 1500)
    scheduler.admit()
    run(scheduler, seconds=1000.0)
    scheduler.remove(1)
    assert run(scheduler) == Plan((), {2: CHUNK})


@dataclass
class Played:
    """A whole day of requests against a scheduler; passes take as long as they have rows."""

    scheduler: Scheduler
    answers: dict[int, int]
    now: float = 0.0
    served: Counter[int] = field(default_factory=Counter)
    prompt_seconds: float = 0.0  # of passes with prompts while others decoded
    decode_seconds: float = 0.0

    def play(self) -> None:
        for _ in range(100_000):
            self.scheduler.admit()
            plan = self.scheduler.plan()
            if not plan:
                return
            self._run(plan)
        pytest.fail("the requests never came to an end")

    def _run(self, plan: Plan) -> None:
        seconds = 0.1 + 0.01 * (len(plan.decoding) + sum(plan.prompts.values()))
        if plan.decoding and plan.prompts:
            self.prompt_seconds += seconds
        elif plan.decoding:
            self.decode_seconds += seconds
        for job, tokens in plan.prompts.items():
            assert tokens > 0
            self.scheduler.advance(job, tokens)
        for job in plan.decoding:
            self.served[job] += 1
            if self.served[job] == self.answers[job]:
                self.scheduler.remove(job)
        self.scheduler.ran(plan, seconds)


@given(
    requests=st.lists(st.tuples(st.integers(1, 700), st.integers(1, 40)), min_size=1, max_size=25),
    num_places=st.integers(1, 8),
    shared_chunk=st.integers(1, CHUNK),
)
def test_every_request_comes_to_its_end(requests: list[tuple[int, int]], num_places: int, shared_chunk: int) -> None:
    scheduler = make(num_places=num_places, kv_tokens=1000, shared_chunk=shared_chunk)
    for job, (prompt, answer) in enumerate(requests):
        scheduler.submit(job, prompt, prompt + answer)
    played = Played(scheduler, {job: answer for job, (_, answer) in enumerate(requests)})
    played.play()
    assert played.served == played.answers


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6))
def test_prompts_never_take_more_than_half_of_the_time_from_those_who_decode(prompts: list[int]) -> None:
    scheduler = make(num_places=8, kv_tokens=10**6)
    scheduler.submit(0, 1, 10**4)
    scheduler.admit()
    played = Played(scheduler, {0: 2000} | dict.fromkeys(range(1, len(prompts) + 1), 1))
    for job, prompt in enumerate(prompts, start=1):
        scheduler.submit(job, prompt, prompt + 1)
    played.play()
    longest = 0.1 + 0.01 * (8 + CHUNK)
    assert played.prompt_seconds <= played.decode_seconds + longest


@given(st.data())
def test_places_and_memory_are_never_given_out_twice(data: st.DataObject) -> None:
    scheduler = make(num_places=3, kv_tokens=100)
    needs: dict[int, int] = {}
    running: set[int] = set()
    for job in range(data.draw(st.integers(1, 30))):
        needs[job] = data.draw(st.integers(2, 100))
        scheduler.submit(job, 1, needs[job])
        running |= set(scheduler.admit())
        assert len(running) <= 3
        assert sum(needs[other] for other in running) <= 100
        assert scheduler.num_running == len(running)
        for other in data.draw(st.sets(st.sampled_from(sorted(running)))) if running else ():
            scheduler.remove(other)
            running.remove(other)
