import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import CancelledError, OverloadedError, StorageError, UnavailableError
from edge.sampler import SamplingParams
from edge.server.admission import Admission, Completion, Happening, Job, Started
from edge.server.engine_call import Prompt
from edge.server.pipe import Worked
from edge.server.rates import Rates
from tests.unit.edge.server.conftest import PlayedEngine

FIVE = SamplingParams(max_tokens=5)


@pytest.fixture
def rates() -> Rates:
    return Rates()


@pytest.fixture
def admission(played: PlayedEngine, rates: Rates) -> Admission:
    return Admission(played, rates, limit=2)


def submit(admission: Admission, first: int, params: SamplingParams = FIVE, tenant: str = "") -> Job:
    with admission.place():
        return admission.submit(Prompt([first, 1, 1], params, tenant), context_tokens=100)


def running(admission: Admission, played: PlayedEngine, first: int, params: SamplingParams = FIVE) -> Job:
    job = submit(admission, first, params)
    played.last.start()
    return job


async def all_news(job: Job) -> list[Happening]:
    news: list[Happening] = []
    while not any(isinstance(item, Completion) for item in news):
        news += await asyncio.wait_for(job.news(), 20)
    return news


def started(played: PlayedEngine) -> list[int]:
    return [call.ids[0] for call in played.calls]


async def test_with_one_place_jobs_run_one_at_a_time_in_the_order_they_came(
    admission: Admission, played: PlayedEngine
) -> None:
    jobs = [submit(admission, first) for first in (1, 2, 3)]
    for number in (1, 2, 3):
        assert len(played.calls) == number
        played.last.start()
        assert (admission.num_running, admission.queue_depth) == (1, 3 - number)
        played.last.finish()
        assert await all_news(jobs[number - 1]) == [Started(), Completion("length")]
    assert started(played) == [1, 2, 3]


async def test_as_many_run_at_once_as_the_engine_has_places(admission: Admission, played: PlayedEngine) -> None:
    played.num_sequences = 3
    jobs = [submit(admission, first) for first in (1, 2, 3, 4, 5)]
    assert started(played) == [1, 2, 3]
    for call in played.calls:
        call.start()
    assert (admission.num_running, admission.queue_depth, admission.num_sequences) == (3, 2, 3)
    played.calls[1].token(7)
    played.calls[1].finish("stop")
    assert started(played) == [1, 2, 3, 4]
    assert await all_news(jobs[1]) == [Started(), 7, Completion("stop")]


async def test_a_place_goes_to_the_tenant_that_has_the_fewest(played: PlayedEngine, rates: Rates) -> None:
    admission = Admission(played, rates, limit=10)
    played.num_sequences = 2
    for first in (10, 11, 12, 13):
        submit(admission, first, tenant="greedy")
    for first in (20, 21):
        submit(admission, first, tenant="modest")
    submit(admission, 30, tenant="late")
    assert started(played) == [10, 11]
    for number, call in enumerate(((10, 20), (11, 12), (20, 21), (12, 13), (21, 30))):
        ending, following = call
        next(call for call in played.calls if call.ids[0] == ending).finish()
        assert started(played)[2 + number] == following


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["come", "finish", "leave"])), max_size=60),
    st.integers(1, 3),
)
def test_nobody_waits_for_ever_and_nothing_is_left_behind(steps: list[tuple[str, str]], places: int) -> None:
    async def play() -> None:
        played = PlayedEngine()
        played.num_sequences = places
        admission, jobs = Admission(played, Rates(), limit=100), list[Job]()
        is_over = set[int]()

        def finish(number: int) -> None:
            is_over.add(number)
            played.calls[number].finish()

        for tenant, what in steps:
            running = [number for number in range(len(played.calls)) if number not in is_over]
            assert len(running) == min(places, len(running) + len(admission._waiting))
            if what == "come":
                jobs.append(submit(admission, 1, tenant=tenant))
            elif what == "finish" and running:
                finish(running[0])
            elif what == "leave" and jobs:
                jobs[len(jobs) // 2].cancel()
        while len(is_over) < len(played.calls):
            finish(min(set(range(len(played.calls))) - is_over))
        assert (admission.num_running, admission.queue_depth, admission.pending_completion_tokens) == (0, 0, 0)
        assert (admission._given, list(admission._waiting), admission.steps_until_place) == ({}, [], 0)

    asyncio.run(play())


async def test_what_the_engine_has_no_memory_for_yet_waits(admission: Admission, played: PlayedEngine) -> None:
    played.num_sequences = 2
    running(admission, played, 1)
    submit(admission, 2)
    assert (admission.num_running, admission.queue_depth) == (1, 1)


async def test_past_the_limit_a_job_is_refused(admission: Admission, played: PlayedEngine) -> None:
    for first in (1, 2, 3):
        submit(admission, first)
    with pytest.raises(OverloadedError, match="at most 2 may wait"):
        submit(admission, 4)
    played.num_sequences = 2
    submit(admission, 4)
    with pytest.raises(OverloadedError):
        submit(admission, 5)
    played.calls[0].finish()
    submit(admission, 5)


async def test_a_request_being_encoded_holds_a_place(admission: Admission) -> None:
    with admission.place(), admission.place(), admission.place(), pytest.raises(OverloadedError):
        submit(admission, 4)
    submit(admission, 4)


async def test_the_wait_is_estimated_for_the_one_that_ends_first(
    admission: Admission, played: PlayedEngine, rates: Rates
) -> None:
    played.num_sequences = 2
    running(admission, played, 1, SamplingParams(max_tokens=50))
    for first in (2, 3, 4):
        submit(admission, first)
    with pytest.raises(OverloadedError) as unmeasured:
        submit(admission, 5)
    rates.prefill.add(3, 6.0)
    rates.decode.add(1, 4.0)
    played.calls[0].token(7)
    with pytest.raises(OverloadedError) as measured:
        submit(admission, 5)
    # A prompt of 3 tokens at 0.5 per second, then 5 tokens at 0.25 per second.
    assert (unmeasured.value.retry_after_s, measured.value.retry_after_s) == (5.0, 26.0)


async def test_pending_tokens_count_down(admission: Admission, played: PlayedEngine) -> None:
    job = running(admission, played, 1)
    submit(admission, 2, SamplingParams(max_tokens=10**9))
    assert (admission.pending_prompt_tokens, admission.pending_completion_tokens) == (6, 5 + 98)
    played.last.token(7, Worked(1, 2, 3, 0))
    assert (admission.pending_prompt_tokens, admission.pending_completion_tokens) == (3, 4 + 98)
    assert job.worked == Worked(1, 2, 3, 0)


async def test_steps_until_a_place_is_free_follow_the_queue(admission: Admission, played: PlayedEngine) -> None:
    played.num_sequences = 2
    for number, (max_tokens, steps) in enumerate(((10, 0), (4, 4), (3, 7), (5, 10))):
        submit(admission, number, SamplingParams(max_tokens=max_tokens))
        assert admission.steps_until_place == steps
    played.calls[1].token(7)
    # Places are free after 10 and 3 steps; the third request takes the latter until 6, the fourth until 11.
    assert admission.steps_until_place == 10


async def test_a_job_cancelled_in_the_queue_leaves_it_at_once(admission: Admission, played: PlayedEngine) -> None:
    jobs = [submit(admission, first) for first in (1, 2, 3)]
    played.last.start()
    jobs[1].cancel()
    jobs[1].cancel()
    assert admission.queue_depth == 1
    played.last.finish()
    assert started(played) == [1, 3]


async def test_a_running_job_keeps_its_place_until_the_engine_says_it_is_free(
    admission: Admission, played: PlayedEngine
) -> None:
    job, _ = running(admission, played, 1), submit(admission, 2)
    job.cancel()
    assert played.last.is_cancelled
    assert len(played.calls) == 1
    played.last.fail(CancelledError("cancelled"))
    assert len(played.calls) == 2


async def test_an_error_ends_its_own_job_after_the_tokens_before_it(admission: Admission, played: PlayedEngine) -> None:
    played.num_sequences = 2
    job, other = running(admission, played, 1), running(admission, played, 2)
    submit(admission, 3)
    played.calls[0].token(7)
    played.calls[0].fail(StorageError("checksum"))
    assert started(played) == [1, 2, 3]
    assert await job.news() == [Started(), 7]
    with pytest.raises(StorageError, match="checksum"):
        await job.news()
    played.calls[1].finish()
    assert await all_news(other) == [Started(), Completion("length")]


async def test_a_lost_engine_ends_the_queue_too(admission: Admission, played: PlayedEngine) -> None:
    played.num_sequences = 2
    jobs = [running(admission, played, first) for first in (1, 2)] + [submit(admission, first) for first in (3, 4)]
    lost = UnavailableError("died", "ENGINE_DIED")
    for call in tuple(played.calls):
        call.fail(lost)
    assert await jobs[0].news() == [Started()]
    assert await jobs[1].news() == [Started()]
    for job in jobs:
        with pytest.raises(UnavailableError, match="died"):
            await job.news()
    assert admission.queue_depth == admission.num_running == 0
    assert len(played.calls) == 2


async def test_an_engine_lost_while_a_place_is_being_filled_ends_the_job(
    admission: Admission, played: PlayedEngine
) -> None:
    running(admission, played, 1)
    waiting = submit(admission, 2)
    played.error = UnavailableError("the engine is restarting", "ENGINE_RESTARTING")
    played.last.finish()
    with pytest.raises(UnavailableError, match="restarting"):
        await waiting.news()
    assert admission.queue_depth == admission.num_running == 0


async def test_an_engine_that_is_not_ready_takes_nothing(admission: Admission, played: PlayedEngine) -> None:
    played.error = UnavailableError("the engine is loading", "ENGINE_LOADING")
    with pytest.raises(UnavailableError, match="loading"):
        submit(admission, 1)


async def test_draining_refuses_new_jobs_and_lets_the_others_end(admission: Admission, played: PlayedEngine) -> None:
    jobs = [submit(admission, first) for first in (1, 2)]
    played.last.start()
    admission.drain()
    with pytest.raises(UnavailableError) as caught:
        submit(admission, 3)
    assert caught.value.reason == "DRAINING"
    played.last.finish()
    played.last.start()
    played.last.finish("stop")
    assert await all_news(jobs[1]) == [Started(), Completion("stop")]


async def test_a_limit_of_zero_takes_as_many_as_run(played: PlayedEngine) -> None:
    admission = Admission(played, Rates(), limit=0)
    submit(admission, 1)
    with pytest.raises(OverloadedError):
        submit(admission, 2)


async def test_a_prompt_is_not_shown(admission: Admission) -> None:
    assert "123" not in repr(Prompt([123], FIVE, "123"))
