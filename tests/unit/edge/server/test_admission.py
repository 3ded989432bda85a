import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from edge.errors import CancelledError, EdgeError, OverloadedError, StorageError, UnavailableError
from edge.sampler import SamplingParams
from edge.server.admission import Admission, Happening, Job, Started
from edge.server.engine_call import Completion
from edge.server.rates import Rates
from tests.unit.edge.server.conftest import PlayedEngine

Until = Callable[..., Any]
FIVE = SamplingParams(max_tokens=5)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def admission(played: PlayedEngine, clock: Clock) -> AsyncIterator[Admission]:
    admission = Admission(played, Rates(), limit=2, clock=clock)
    task = asyncio.create_task(admission.run())
    yield admission
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def submit(admission: Admission, first: int, params: SamplingParams = FIVE) -> Job:
    with admission.place():
        return admission.submit([first, 1, 1], params, context_tokens=100)


async def all_news(job: Job) -> list[Happening]:
    news: list[Happening] = []
    while not any(isinstance(item, Completion) for item in news):
        news += await job.news()
    return news


async def test_jobs_run_one_at_a_time_in_the_order_they_came(
    admission: Admission, played: PlayedEngine, until: Until
) -> None:
    jobs = [submit(admission, first) for first in (1, 2, 3)]
    for number in (1, 2, 3):
        await until(lambda number=number: len(played.started) == number)
        assert (admission.num_running, admission.queue_depth) == (1, 3 - number)
        played.finish()
        assert await all_news(jobs[number - 1]) == [Started(), Completion("length")]
    assert [ids[0] for ids in played.started] == [1, 2, 3]


async def test_past_the_limit_a_job_is_refused_before_and_after_the_first_runs(
    admission: Admission, played: PlayedEngine, until: Until
) -> None:
    for first in (1, 2, 3):
        submit(admission, first)
    with pytest.raises(OverloadedError, match="at most 2 may wait"):
        submit(admission, 4)
    await until(lambda: played.started)
    with pytest.raises(OverloadedError):
        submit(admission, 4)
    played.finish()
    await until(lambda: len(played.started) == 2)
    submit(admission, 4)


async def test_a_request_being_encoded_holds_a_place(admission: Admission) -> None:
    with admission.place(), admission.place(), admission.place(), pytest.raises(OverloadedError):
        submit(admission, 4)
    submit(admission, 4)


async def test_an_unforeseen_error_ends_its_job_and_the_worker(played: PlayedEngine, until: Until) -> None:
    admission = Admission(played, Rates(), limit=1)
    worker = asyncio.create_task(admission.run())
    job = submit(admission, 1)
    await until(lambda: played.started)
    played.fail(ValueError("canary"))
    assert await job.news() == [Started()]
    with pytest.raises(EdgeError, match="unexpectedly"):
        await job.news()
    with pytest.raises(ValueError, match="canary"):
        await worker


async def test_the_wait_is_estimated_from_rates_and_pending_tokens(
    admission: Admission, played: PlayedEngine, clock: Clock, until: Until
) -> None:
    for first in (1, 2, 3):
        submit(admission, first)
    await until(lambda: played.started)
    with pytest.raises(OverloadedError) as unmeasured:
        submit(admission, 4)
    clock.now = 6.0
    played.token(7)  # 3 prompt tokens in 6 s
    clock.now = 10.0
    played.token(8)  # 1 token in 4 s; 3 are left
    with pytest.raises(OverloadedError) as measured:
        submit(admission, 4)
    assert (unmeasured.value.retry_after_s, measured.value.retry_after_s) == (5.0, 12.0)


async def test_pending_tokens_count_down(admission: Admission, played: PlayedEngine, until: Until) -> None:
    submit(admission, 1)
    submit(admission, 2, SamplingParams(max_tokens=10**9))
    await until(lambda: played.started)
    assert (admission.pending_prompt_tokens, admission.pending_completion_tokens) == (6, 5 + 98)
    played.token(7)
    assert (admission.pending_prompt_tokens, admission.pending_completion_tokens) == (3, 4 + 98)


async def test_a_job_cancelled_in_the_queue_leaves_it_at_once(
    admission: Admission, played: PlayedEngine, until: Until
) -> None:
    jobs = [submit(admission, first) for first in (1, 2, 3)]
    await until(lambda: played.started)
    jobs[1].cancel()
    jobs[1].cancel()
    assert admission.queue_depth == 1
    played.finish()
    await until(lambda: len(played.started) == 2)
    assert played.started[1][0] == 3


async def test_a_running_job_keeps_the_engine_until_the_engine_says_it_is_free(
    admission: Admission, played: PlayedEngine, until: Until
) -> None:
    job, _ = submit(admission, 1), submit(admission, 2)
    await until(lambda: played.started)
    job.cancel()
    assert played.is_cancelled
    assert len(played.started) == 1
    played.fail(CancelledError("cancelled"))
    await until(lambda: len(played.started) == 2)


async def test_an_error_ends_its_own_job_after_the_tokens_before_it(
    admission: Admission, played: PlayedEngine, until: Until
) -> None:
    job, _ = submit(admission, 1), submit(admission, 2)
    await until(lambda: played.started)
    played.token(7)
    played.fail(StorageError("checksum"))
    await until(lambda: len(played.started) == 2)
    assert await job.news() == [Started(), 7]
    with pytest.raises(StorageError, match="checksum"):
        await job.news()


async def test_a_lost_engine_ends_the_queue_too(admission: Admission, played: PlayedEngine, until: Until) -> None:
    jobs = [submit(admission, first) for first in (1, 2)]
    await until(lambda: played.started)
    played.fail(UnavailableError("died", "ENGINE_DIED"))
    assert await jobs[0].news() == [Started()]
    for job in jobs:
        with pytest.raises(UnavailableError, match="died"):
            await job.news()
    assert admission.queue_depth == admission.num_running == 0


async def test_an_engine_that_is_not_ready_takes_nothing(admission: Admission, played: PlayedEngine) -> None:
    played.error = UnavailableError("the engine is loading", "ENGINE_LOADING")
    with pytest.raises(UnavailableError, match="loading"):
        submit(admission, 1)


async def test_draining_refuses_new_jobs_and_lets_the_others_end(
    admission: Admission, played: PlayedEngine, until: Until
) -> None:
    jobs = [submit(admission, first) for first in (1, 2)]
    await until(lambda: played.started)
    admission.drain()
    with pytest.raises(UnavailableError) as caught:
        submit(admission, 3)
    assert caught.value.reason == "DRAINING"
    played.finish()
    await until(lambda: len(played.started) == 2)
    played.finish("stop")
    assert await all_news(jobs[1]) == [Started(), Completion("stop")]


async def test_a_limit_of_zero_takes_one_at_a_time(played: PlayedEngine) -> None:
    admission = Admission(played, Rates(), limit=0)
    submit(admission, 1)
    with pytest.raises(OverloadedError):
        submit(admission, 2)
