"""Engines of the tests: a process that runs a fake, and one in memory that the test plays itself."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edge.sampler import SamplingParams
from edge.server import pipe
from edge.server.engine_call import Completion
from edge.server.observed import Event
from edge.server.supervisor import Supervisor

FAKE_ENGINE = (sys.executable, str(Path(__file__).with_name("fake_engine.py")))


@pytest.fixture
def events() -> list[Event]:
    """What the observer of a test was told."""
    return []


@pytest.fixture
def supervised(events: list[Event]) -> Callable[..., object]:
    """`async with supervised(path=…, silence_s=…) as supervisor`: a supervisor that runs the fake engine process."""

    @asynccontextmanager
    async def start(path: str = "", **options: object) -> AsyncIterator[Supervisor]:
        command = options.pop("command", FAKE_ENGINE)
        supervisor = Supervisor(pipe.Load(path, 1, 4096, 1), events.append, command=command, **options)  # type: ignore[arg-type] # passed on as given
        task = asyncio.create_task(supervisor.run())
        try:
            yield supervisor
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return start


def _ignore(token: int) -> None:
    """Nobody listens yet."""


class PlayedEngine:
    """An EngineClient whose tokens and ends the test gives by hand."""

    def __init__(self) -> None:
        self.counters = pipe.Counters()
        self.error: Exception | None = None
        self.started: list[list[int]] = []
        self._on_token: Callable[[int], None] = _ignore
        self._end: asyncio.Future[Completion] | None = None
        self._cancelled = asyncio.Event()

    def check_ready(self) -> None:
        if self.error is not None:
            raise self.error

    async def generate(
        self,
        ids: Sequence[int],
        sampling: SamplingParams,
        on_token: Callable[[int], None],
        cancelled: asyncio.Event,
    ) -> Completion:
        self.started.append(list(ids))
        self._on_token, self._cancelled = on_token, cancelled
        self._end = asyncio.get_running_loop().create_future()
        return await self._end

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def token(self, token: int) -> None:
        self._on_token(token)

    def finish(self, reason: str = "length") -> None:
        assert self._end is not None
        self._end.set_result(Completion(reason))

    def fail(self, error: Exception) -> None:
        assert self._end is not None
        self._end.set_exception(error)


@pytest.fixture
def played() -> PlayedEngine:
    return PlayedEngine()


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Let the event loop go on until `condition` holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., object]:
    return until
