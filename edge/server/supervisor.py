"""Keeps one engine process running: starts it, talks to it, notices its death or silence, starts the next."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import structlog

from edge.errors import EdgeError, UnavailableError
from edge.server import backoff, pipe
from edge.server.engine_call import Listener, Prompt, as_error, describe_exit
from edge.server.observed import EngineRestarted, EngineStepped, EngineWorked, Observer

ENGINE_COMMAND = (sys.executable, "-m", "edge.server.engine_process")
# Deaths while loading, before it was ever ready: the third is not bad luck.
MAX_FAILED_STARTS = 3
# An engine that lived this long was healthy: the next delay is the first again.
HEALTHY_S = 60.0
STOP_S = 5.0
# How long loading takes, told to callers before it was measured.
FIRST_LOAD_S = 10.0
# What loading again would not mend.
PERMANENT = ("PackError", "BudgetError", "PrefixDirectoryError", "CheckpointError", "RequestError")
# Longer than any line: the longest, a request's ids, goes the other way.
LINE_LIMIT = 2**20

log = structlog.get_logger()


class EngineState(StrEnum):
    """The closed set of the metric's label."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"


class Supervisor:
    """One engine, restarted while `run` runs. All of it on one event loop.

    silence_s: an engine at work that says nothing for so long is taken for hung and killed. Any request's news count.
    """

    def __init__(
        self,
        load: pipe.Load,
        observer: Observer,
        *,
        command: Sequence[str] = ENGINE_COMMAND,
        silence_s: float = 120.0,
        delays: Callable[[], Iterator[float]] = backoff.delays,
        sleep: Callable[[float], Any] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = EngineState.LOADING
        self.error = ""
        self.info: pipe.Ready | None = None
        self._counters = pipe.Counters()
        self.restarts = 0
        self.on_state: Callable[[], None] = lambda: None
        self._load = load
        self._observer = observer
        self._command = tuple(command)
        self._silence_s = silence_s
        self._delays, self._sleep, self._clock = delays, sleep, clock
        self._settled = asyncio.Event()  # ready or failed for the first time
        self._failure: EdgeError | None = None
        self._process: Process | None = None
        self._calls: dict[int, Listener] = {}
        self._num_calls = 0
        self._is_at_work = asyncio.Event()  # there are calls
        self._last_sign = 0.0
        self._last_words = ""
        self._started_at = 0.0
        self._ready_at: float | None = None
        self._load_s = FIRST_LOAD_S

    @property
    def num_sequences(self) -> int:
        """How many requests the engine runs at once; 1 before it was ever ready."""
        return 1 if self.info is None else self.info.num_sequences

    @property
    def pid(self) -> int | None:
        """The engine's process, for its memory; None between two."""
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Start engines until cancelled, or until one cannot be loaded."""
        delays, failed_starts = self._delays(), 0
        try:
            while True:
                cause = await self._one_life()
                if self.state is EngineState.FAILED:
                    return
                failed_starts = failed_starts + 1 if self.info is None else 0
                if failed_starts == MAX_FAILED_STARTS:
                    self._fail(UnavailableError(f"the engine could not be started: {cause}", "ENGINE_FAILED"))
                    return
                if self._ready_at is not None and self._clock() - self._ready_at >= HEALTHY_S:
                    delays = self._delays()
                self._ready_at = None
                self.restarts += 1
                self._observer(EngineRestarted())
                await self._sleep(next(delays))
        finally:
            await self._end_process()

    async def wait_ready(self) -> None:
        """Return once the engine is ready for the first time. Raises: what it cannot be loaded for."""
        await self._settled.wait()
        if self._failure is not None:
            raise self._failure

    def check_ready(self) -> None:
        """Raises: UnavailableError unless a request could start now."""
        if self.state is not EngineState.READY:
            wait_s = None if self.state is EngineState.FAILED else max(1.0, self._load_s)
            raise UnavailableError(f"the engine is {self.state}", f"ENGINE_{self.state.upper()}", wait_s)

    def start(self, prompt: Prompt, listener: Listener) -> int:
        """Give a request to the engine; returns the number that `cancel` takes.

        Beyond `num_sequences` it waits in the engine. Its listener hears of its end in any case: the engine's own, or
        UnavailableError if that died or fell silent. Raises: UnavailableError unless the engine is ready.
        """
        self.check_ready()
        self._num_calls += 1
        job = self._num_calls
        if not self._calls:
            self._last_sign = self._clock()
        self._calls[job] = listener
        self._is_at_work.set()
        self._send(pipe.Generate(job, prompt.ids, prompt.sampling, prompt.tenant))
        return job

    def cancel(self, job: int) -> None:
        """Give a request up; its listener hears when the engine has let go of it. Nothing happens if it is over."""
        if job in self._calls:
            self._send(pipe.Cancel(job))

    async def _watch(self) -> None:
        """Returns once the engine has been silent for too long."""
        while True:
            await self._is_at_work.wait()
            silent = self._clock() - self._last_sign
            if silent >= self._silence_s:
                break
            await asyncio.sleep(self._silence_s - silent)
        log.error("engine_silent", silence_s=self._silence_s)
        self._last_words = f"the engine gave no sign for {self._silence_s:g} s"
        # Before it is dead, which a process that waits for a disk may take long to be.
        self._lose(UnavailableError(self._last_words, "ENGINE_TIMEOUT"))
        self._kill()

    async def _one_life(self) -> str:
        """From start to end of one process; returns why it ended."""
        watchdog = asyncio.create_task(self._watch())
        try:
            cause = await self._process_life()
        finally:
            watchdog.cancel()
        if self.state is not EngineState.FAILED:
            log.error("engine_died", cause=cause)
            self._lose(UnavailableError(f"the engine process was lost: {cause}", "ENGINE_DIED"))
        return cause

    async def _process_life(self) -> str:
        self._counters, self._last_words = pipe.Counters(), ""
        with _interrupts_held():
            process = await asyncio.create_subprocess_exec(*self._command, stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT)
        self._process = process
        self._started_at = self._clock()
        self._send(self._load)
        try:
            async for line in _stream(process):
                self._handle(pipe.from_line(line))
        except ValueError as error:  # an overlong line, or one that is no message
            log.error("engine_pipe_broken", error=str(error))  # noqa: TRY400 -- the trace says nothing more
            self._kill()
        status = await process.wait()
        self._process = None
        return self._last_words or describe_exit(status)

    def _handle(self, message: pipe.Message) -> None:
        self._last_sign = self._clock()
        match message:
            case pipe.Ready():
                self.info = message
                self._ready_at = self._clock()
                self._load_s = self._ready_at - self._started_at
                self._count(message.counters)
                self._set(EngineState.READY)
            case pipe.LoadFailed(error=error, message=text):
                if error in PERMANENT:
                    self._fail(as_error(error, text))
                else:
                    self._last_words = f"{error} while loading"
            case pipe.Alive(counters=counters):
                self._count(counters)
            case pipe.Step():
                if message.counters is not None:
                    self._count(message.counters)
                self._observer(EngineStepped(message))
                for event in message.events:
                    self._tell(event)
            case pipe.Crashed(error=error):
                self._last_words = f"{error} while working"
            case _:
                pass  # Loading: a sign of life

    def _tell(self, event: pipe.Event) -> None:
        listener = self._calls.get(event.job)
        if listener is None:  # its engine was given up before these words of it were read
            return
        if isinstance(event, pipe.Finished | pipe.Failed):
            self._forget(event.job)
        match event:
            case pipe.Started():
                listener.started()
            case pipe.Token(token=token, worked=worked):
                listener.token(token, worked)
            case pipe.Finished(reason=reason, worked=worked):
                listener.finished(reason, worked)
            case pipe.Failed(error=error, message=text):
                listener.failed(as_error(error, text))

    def _forget(self, job: int) -> None:
        del self._calls[job]
        if not self._calls:
            self._is_at_work.clear()

    def _lose(self, error: UnavailableError) -> None:
        """This engine answers no more: end its requests, and take none until the next is ready."""
        self._set(EngineState.RESTARTING, str(error))
        for job, listener in list(self._calls.items()):
            self._forget(job)
            listener.failed(error)

    def _count(self, counters: pipe.Counters) -> None:
        self._observer(EngineWorked(counters.since(self._counters)))
        self._counters = counters

    def _fail(self, failure: EdgeError) -> None:
        self._failure = failure
        self._set(EngineState.FAILED, str(failure))

    def _set(self, state: EngineState, error: str = "") -> None:
        self.state, self.error = state, error
        log.info("engine_state", state=str(state), error=error)
        if state in (EngineState.READY, EngineState.FAILED):
            self._settled.set()
        self.on_state()

    def _send(self, message: pipe.Message) -> None:
        stdin = self._process.stdin if self._process else None
        if stdin is not None and not stdin.is_closing():
            stdin.write(pipe.to_line(message))

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _end_process(self) -> None:
        """The engine leaves when its stdin ends; one that does not is killed."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A process started within is born deaf to Ctrl-C, which would end its imports in a traceback; ours comes after."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


async def _stream(process: Process) -> Any:
    if process.stdout is not None:
        async for line in process.stdout:
            yield line
