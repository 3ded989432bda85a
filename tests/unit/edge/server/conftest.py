"""Engines of the tests: a process that runs a fake, and one in memory that the test plays itself."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edge.deviation import Deviation, RoutingCounts
from edge.errors import EdgeError
from edge.server import pipe, sensors
from edge.server.engine_call import Listener, Prompt
from edge.server.observed import Event
from edge.server.status import NodeState, NodeStatus
from edge.server.supervisor import Supervisor

# Every number another one.
STATUS = NodeStatus(
    model="m",
    state=NodeState.READY,
    error="",
    context_tokens=64,
    queue_depth=1,
    queue_limit=2,
    running=3,
    running_limit=4,
    steps_until_place=5,
    pending_prompt_tokens=6,
    pending_completion_tokens=7,
    prefill_tokens_per_second=5.5,
    prompt_base_s=0.25,
    decode_tokens_per_second=6.5,
    total_decode_tokens_per_second=13.5,
    batch_size=2.5,
    prompt_bytes_per_token=7.5,
    prompt_reuse_rate=0.75,
    expert_cache_hit_rate=0.5,
    disk_read_bytes_per_second=8.5,
    memory_bytes=9,
    memory_budget_bytes=10,
    temperature_celsius=41.5,
    power=sensors.Power(0.5, True),
    uptime_s=11.5,
    engine_restarts=12,
    weight_bits=4.5,
    deviation=Deviation(14, 13, 0.375),
    routing=RoutingCounts(15, 16, 14.5),
)
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


class PlayedCall:
    """One request in a PlayedEngine, and what the test lets become of it."""

    def __init__(self, prompt: Prompt, listener: Listener) -> None:
        self.ids = list(prompt.ids)
        self.prompt = prompt
        self.is_cancelled = False
        self._listener = listener

    def start(self) -> None:
        self._listener.started()

    def token(self, token: int, worked: pipe.Worked = pipe.Worked()) -> None:  # noqa: B008 -- frozen
        self._listener.token(token, worked)

    def finish(self, reason: str = "length", worked: pipe.Worked = pipe.Worked()) -> None:  # noqa: B008 -- frozen
        self._listener.finished(reason, worked)

    def fail(self, error: EdgeError) -> None:
        self._listener.failed(error)


class PlayedEngine:
    """An EngineClient whose requests start, speak and end as the test says."""

    def __init__(self) -> None:
        self.num_sequences = 1
        self.error: Exception | None = None
        self.calls: list[PlayedCall] = []

    def check_ready(self) -> None:
        if self.error is not None:
            raise self.error

    def start(self, prompt: Prompt, listener: Listener) -> int:
        self.check_ready()
        self.calls.append(PlayedCall(prompt, listener))
        return len(self.calls) - 1

    def cancel(self, job: int) -> None:
        self.calls[job].is_cancelled = True

    @property
    def last(self) -> PlayedCall:
        return self.calls[-1]


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
