import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.errors import BudgetError, CancelledError, EdgeError, PackError, StorageError, UnavailableError
from edge.sampler import SamplingParams
from edge.server import backoff
from edge.server.engine_call import Completion
from edge.server.observed import EngineRestarted, EngineWorked, Event
from edge.server.supervisor import EngineState, Supervisor
from tests.unit.edge.server import fake_engine as fake

Supervised = Callable[..., Any]
Until = Callable[..., Any]


def no_delay() -> Iterator[float]:
    while True:
        yield 0.0


async def ask(supervisor: Supervisor, kind: int, max_tokens: int = 4) -> tuple[list[int], Completion]:
    tokens: list[int] = []
    params = SamplingParams(max_tokens=max_tokens)
    completion = await supervisor.generate([kind], params, tokens.append, asyncio.Event())
    return tokens, completion


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
        assert await ask(supervisor, fake.COUNT) == ([100, 101, 102, 103], Completion("length"))
        assert await ask(supervisor, fake.COUNT, 1) == ([100], Completion("length"))
    added = [event.added for event in events if isinstance(event, EngineWorked)]
    assert sum(counters.expert_lookups for counters in added) == 50


async def test_an_error_of_the_engine_keeps_its_class(supervised: Supervised) -> None:
    async with supervised() as supervisor:
        await supervisor.wait_ready()
        with pytest.raises(StorageError, match="layer 3: checksum"):
            await ask(supervisor, fake.BAD_DISK)
        assert await ask(supervisor, fake.COUNT, 1) == ([100], Completion("length"))


async def test_cancelling_frees_the_engine_for_the_next(supervised: Supervised, until: Until) -> None:
    async with supervised() as supervisor:
        await supervisor.wait_ready()
        tokens: list[int] = []
        cancelled = asyncio.Event()
        params = SamplingParams(max_tokens=1_000_000)
        task = asyncio.create_task(supervisor.generate([fake.SLOW], params, tokens.append, cancelled))
        await until(lambda: tokens)
        cancelled.set()
        with pytest.raises(CancelledError):
            await task
        assert await ask(supervisor, fake.COUNT, 1) == ([100], Completion("length"))


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
        assert await ask(supervisor, fake.COUNT, 1) == ([100], Completion("length"))
    assert events.count(EngineRestarted()) == 1
    added = [event.added for event in events if isinstance(event, EngineWorked)]
    assert all(counters.expert_lookups >= 0 for counters in added)


async def test_a_silent_engine_is_killed_and_replaced(supervised: Supervised, until: Until) -> None:
    async with supervised(silence_s=0.3, delays=no_delay) as supervisor:
        await supervisor.wait_ready()
        with pytest.raises(UnavailableError, match="no sign") as caught:
            await ask(supervisor, fake.HANG)
        assert caught.value.reason == "ENGINE_TIMEOUT"
        await until(lambda: supervisor.restarts == 1 and supervisor.state is EngineState.READY)


async def test_a_long_prompt_is_not_taken_for_silence(supervised: Supervised, until: Until) -> None:
    async with supervised(silence_s=1.5) as supervisor:
        await supervisor.wait_ready()
        cancelled = asyncio.Event()
        params = SamplingParams()
        task = asyncio.create_task(supervisor.generate([fake.LONG_PROMPT], params, [].append, cancelled))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 2.0)
        cancelled.set()
        with pytest.raises(CancelledError):
            await task
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
