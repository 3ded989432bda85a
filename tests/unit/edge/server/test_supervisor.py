import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import BudgetError, CancelledError, EdgeError, PackError, StorageError, UnavailableError
from edge.sampler import SamplingParams
from edge.server import backoff
from edge.server.engine_call import Prompt
from edge.server.observed import EngineRestarted, EngineStepped, EngineWorked, Event
from edge.server.pipe import Worked
from edge.server.supervisor import EngineState, Supervisor
from tests.unit.edge.server import fake_engine as fake

Supervised = Callable[..., Any]
Until = Callable[..., Any]


def no_delay() -> Iterator[float]:
    while True:
        yield 0.0


class Heard:
    """A listener that keeps what it is told; `end` raises the error that ended the request."""

    def __init__(self, supervisor: Supervisor, kind: int, max_tokens: int = 4) -> None:
        self.tokens: list[int] = []
        self.worked = Worked()
        self.has_started = False
        self._end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.job = supervisor.start(Prompt([kind], SamplingParams(max_tokens=max_tokens)), self)

    async def end(self) -> str:
        return await asyncio.wait_for(asyncio.shield(self._end), 20)

    def started(self) -> None:
        self.has_started = True

    def token(self, token: int, worked: Worked) -> None:
        self.tokens.append(token)

    def finished(self, reason: str, worked: Worked) -> None:
        self.worked = worked
        self._end.set_result(reason)

    def failed(self, error: EdgeError) -> None:
        self._end.set_exception(error)


async def ask(supervisor: Supervisor, kind: int, max_tokens: int = 4) -> tuple[list[int], str]:
    heard = Heard(supervisor, kind, max_tokens)
    return heard.tokens, await heard.end()


def test_delays_double_up_to_the_longest() -> None:
    delays = backoff.delays(0.5, 3.0)
    assert [next(delays) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


async def test_before_the_engine_is_ready_requests_are_refused(supervised: Supervised) -> None:
    async with supervised() as supervisor:
        with pytest.raises(UnavailableError, match="loading") as caught:
            supervisor.check_ready()
        assert (caught.value.reason, caught.value.retry_after_s) == ("ENGINE_LOADING", 10.0)
        await supervisor.wait_ready()
        supervisor.check_ready()


async def test_an_engine_is_born_deaf_to_ctrl_c(supervised: Supervised) -> None:
    async with supervised() as supervisor:
        await supervisor.wait_ready()
        status = Path(f"/proc/{supervisor.pid}/status").read_text()
    blocked = next(line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:"))
    assert int(blocked, 16) >> (signal.SIGINT - 1) & 1
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [("damaged", PackError, "manifest is missing"), ("greedy", BudgetError, "at least 3 GB")],
)
async def test_what_loading_again_would_not_mend_is_final(
    supervised: Supervised, path: str, kind: type[EdgeError], text: str
) -> None:
    async with supervised(path) as supervisor:
        with pytest.raises(kind, match=text):
            await supervisor.wait_ready()
        assert supervisor.state is EngineState.FAILED
        with pytest.raises(UnavailableError, match="failed") as caught:
            supervisor.check_ready()
        assert (caught.value.reason, caught.value.retry_after_s) == ("ENGINE_FAILED", None)
        assert supervisor.restarts == 0


@pytest.mark.parametrize(("path", "text"), [("mystery", "RuntimeError while loading"), ("dies", "SIGKILL")])
async def test_an_engine_that_never_starts_is_given_up(supervised: Supervised, path: str, text: str) -> None:
    async with supervised(path, delays=no_delay) as supervisor:
        with pytest.raises(UnavailableError, match=text):
            await supervisor.wait_ready()
        assert supervisor.restarts == 2


async def test_a_command_that_talks_nonsense_is_given_up(supervised: Supervised) -> None:
    command = (sys.executable, "-c", "print('nonsense'); input()")
    async with supervised(command=command, delays=no_delay) as supervisor:
        with pytest.raises(UnavailableError, match="could not be started"):
            await supervisor.wait_ready()


async def test_tokens_and_counters_come_through(supervised: Supervised, events: list[Event]) -> None:
    async with supervised() as supervisor:
        await supervisor.wait_ready()
        assert await ask(supervisor, fake.COUNT) == ([100, 101, 102, 103], "length")
        assert await ask(supervisor, fake.COUNT, 1) == ([100], "length")
    added = [event.added for event in events if isinstance(event, EngineWorked)]
    assert sum(counters.expert_lookups for counters in added) == 50


async def test_an_error_of_the_engine_keeps_its_class(supervised: Supervised) -> None:
    async with supervised() as supervisor:
        await supervisor.wait_ready()
        with pytest.raises(StorageError, match="layer 3: checksum"):
            await ask(supervisor, fake.BAD_DISK)
        assert await ask(supervisor, fake.COUNT, 1) == ([100], "length")


async def test_many_requests_run_at_once_and_each_hears_its_own(supervised: Supervised, events: list[Event]) -> None:
    async with supervised() as supervisor:
        await supervisor.wait_ready()
        assert supervisor.num_sequences == fake.NUM_SEQUENCES
        crowd = [Heard(supervisor, fake.SLOW, max_tokens) for max_tokens in (40, 3, 30, 20, 10)]
        assert [await heard.end() for heard in crowd] == ["length"] * 5
    assert [heard.tokens for heard in crowd] == [list(range(100, 100 + count)) for count in (40, 3, 30, 20, 10)]
    assert [heard.worked.expert_lookups for heard in crowd] == [400, 30, 300, 200, 100]
    steps = [event.step for event in events if isinstance(event, EngineStepped)]
    assert max(len(step.events) for step in steps) >= fake.NUM_SEQUENCES


async def test_cancelling_one_leaves_the_others_going(supervised: Supervised, until: Until) -> None:
    async with supervised() as supervisor:
        await supervisor.wait_ready()
        leaving, staying = Heard(supervisor, fake.SLOW, 1_000_000), Heard(supervisor, fake.SLOW, 50)
        await until(lambda: leaving.tokens and staying.tokens)
        supervisor.cancel(leaving.job)
        with pytest.raises(CancelledError):
            await leaving.end()
        assert await staying.end() == "length"
        supervisor.cancel(leaving.job)
        supervisor.cancel(staying.job)
        assert await ask(supervisor, fake.COUNT, 1) == ([100], "length")


async def test_a_lost_engine_ends_all_its_requests(supervised: Supervised, until: Until) -> None:
    async with supervised(delays=no_delay) as supervisor:
        await supervisor.wait_ready()
        crowd = [Heard(supervisor, fake.SLOW, 1_000_000) for _ in range(5)]
        await until(lambda: all(heard.tokens for heard in crowd[:4]))
        os.kill(supervisor.pid, signal.SIGKILL)
        for heard in crowd:
            with pytest.raises(UnavailableError, match="SIGKILL"):
                await heard.end()
        await until(lambda: supervisor.state is EngineState.READY)
        assert await ask(supervisor, fake.COUNT, 1) == ([100], "length")


@pytest.mark.parametrize(("kind", "cause"), [(fake.DIE, "SIGKILL"), (fake.BUG, "ValueError")])
async def test_an_engine_that_dies_is_replaced(
    supervised: Supervised, events: list[Event], until: Until, kind: int, cause: str
) -> None:
    async with supervised(delays=no_delay) as supervisor:
        await supervisor.wait_ready()
        first = supervisor.pid
        with pytest.raises(UnavailableError, match=cause) as caught:
            await ask(supervisor, kind)
        assert caught.value.reason == "ENGINE_DIED"
        await until(lambda: supervisor.restarts == 1 and supervisor.state is EngineState.READY)
        assert supervisor.pid != first
        assert await ask(supervisor, fake.COUNT, 1) == ([100], "length")
    assert events.count(EngineRestarted()) == 1
    added = [event.added for event in events if isinstance(event, EngineWorked)]
    assert all(counters.expert_lookups >= 0 for counters in added)


async def test_a_silent_engine_is_killed_and_replaced(supervised: Supervised, until: Until) -> None:
    async with supervised(silence_s=0.3, delays=no_delay) as supervisor:
        await supervisor.wait_ready()
        with pytest.raises(UnavailableError, match="no sign") as caught:
            await ask(supervisor, fake.HANG)
        assert caught.value.reason == "ENGINE_TIMEOUT"
        with pytest.raises(UnavailableError, match="restarting"):
            supervisor.check_ready()
        await until(lambda: supervisor.restarts == 1 and supervisor.state is EngineState.READY)


async def test_a_long_prompt_is_not_taken_for_silence(supervised: Supervised, until: Until) -> None:
    async with supervised(silence_s=1.5) as supervisor:
        await supervisor.wait_ready()
        heard = Heard(supervisor, fake.LONG_PROMPT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(heard.end(), 2.0)
        supervisor.cancel(heard.job)
        with pytest.raises(CancelledError):
            await heard.end()
        assert supervisor.restarts == 0


async def test_delays_grow_while_engines_die_young_and_start_over_after_a_healthy_one(
    supervised: Supervised, until: Until
) -> None:
    slept: list[float] = []
    now = 0.0

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with supervised(sleep=sleep, clock=lambda: now, silence_s=1e9) as supervisor:
        for death, lived_s in enumerate((0.0, 0.0, 61.0), start=1):
            await until(lambda: supervisor.state is EngineState.READY)
            now += lived_s
            with pytest.raises(EdgeError):
                await ask(supervisor, fake.DIE)
            await until(lambda death=death: supervisor.restarts == death)
        await until(lambda: supervisor.state is EngineState.READY)
    assert slept == [0.5, 1.0, 0.5]


async def test_no_process_is_left_behind(supervised: Supervised) -> None:
    async with supervised() as supervisor:
        await supervisor.wait_ready()
        process = supervisor._process
    assert process is not None
    assert process.returncode == 0
    assert supervisor.pid is None
