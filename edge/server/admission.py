"""Who may use the engine, and when: one request at a time, first come first served, a limited queue before it."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from edge.errors import CancelledError, EdgeError, OverloadedError, UnavailableError
from edge.sampler import SamplingParams
from edge.server.engine_call import Completion
from edge.server.pipe import Counters
from edge.server.rates import Rates

# What a caller is told to wait before anything was measured, and the most it is told.
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 600.0


class EngineClient(Protocol):
    """What admission needs of the engine; edge.server.supervisor.Supervisor, or a fake in tests."""

    @property
    def counters(self) -> Counters: ...

    def check_ready(self) -> None: ...

    async def generate(
        self,
        ids: Sequence[int],
        sampling: SamplingParams,
        on_token: Callable[[int], None],
        cancelled: asyncio.Event,
    ) -> Completion: ...


@dataclass(frozen=True, slots=True)
class Started:
    """The request left the queue."""


Happening = Started | int | Completion


class Job:
    """One accepted request. Tokens wait here for a slow reader, at most a context of them: the engine never waits."""

    def __init__(self, ids: Sequence[int], sampling: SamplingParams, context_tokens: int, queue: "deque[Job]") -> None:
        self.ids = ids
        self.sampling = sampling
        self.pending_prompt_tokens = len(ids)
        # The last token of an answer is not read back in, so it needs no place in the context.
        self.pending_completion_tokens = min(sampling.max_tokens, context_tokens - len(ids) + 1)
        self.cancelled = asyncio.Event()
        # What the engine's counters gained while this request ran.
        self.worked = Counters()
        self._queue = queue
        self._news: list[Happening] = []
        self._error: EdgeError | None = None
        self._has_news = asyncio.Event()

    async def news(self) -> list[Happening]:
        """Wait for what happened since the last call, a Completion at last. Raises: the error that ended the job."""
        await self._has_news.wait()
        news, self._news = self._news, []
        if not news and self._error is not None:
            raise self._error
        if self._error is None:
            self._has_news.clear()
        return news

    def cancel(self) -> None:
        """Nobody waits for the answer any more. May be called at any time."""
        self.cancelled.set()
        if self in self._queue:
            self._queue.remove(self)

    def put(self, happening: Happening) -> None:
        self._news.append(happening)
        self._has_news.set()

    def fail(self, error: EdgeError) -> None:
        """End the job; what was put before still comes first."""
        self._error = self._error or error
        self._has_news.set()


class Admission:
    """Accepts jobs while `run` runs. limit: the most that may wait beside the one that runs."""

    def __init__(
        self, engine: EngineClient, rates: Rates, limit: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = limit
        self._engine = engine
        self._rates = rates
        self._clock = clock
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._arrived = asyncio.Event()
        self._is_draining = False
        self._num_places = 0

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return 0 if self._running is None else 1

    @property
    def pending_prompt_tokens(self) -> int:
        return sum(job.pending_prompt_tokens for job in self._accepted())

    @property
    def pending_completion_tokens(self) -> int:
        return sum(job.pending_completion_tokens for job in self._accepted())

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue while a request is being encoded, so that their number and memory are bounded too.

        Raises: UnavailableError while no request can be taken at all, OverloadedError while the queue is full.
        """
        self._check_available()
        if len(self._accepted()) + self._num_places > self.limit:
            raise OverloadedError(f"the queue is full: at most {self.limit} may wait", self._retry_after_s())
        self._num_places += 1
        try:
            yield
        finally:
            self._num_places -= 1

    def submit(self, ids: Sequence[int], sampling: SamplingParams, context_tokens: int) -> Job:
        """Queue a request that holds a place. Raises: UnavailableError if that came to an end meanwhile."""
        self._check_available()
        job = Job(ids, sampling, context_tokens, self._waiting)
        self._waiting.append(job)
        self._arrived.set()
        return job

    def drain(self) -> None:
        """Take no more requests; those accepted go on."""
        self._is_draining = True

    def fail_all(self, error: EdgeError) -> None:
        """End every accepted request with `error`."""
        for job in self._accepted():
            job.fail(error)
            job.cancel()

    async def run(self) -> None:
        """Serve jobs for ever."""
        while True:
            self._arrived.clear()
            while self._waiting:
                job = self._running = self._waiting.popleft()
                try:
                    await self._serve(job)
                finally:
                    self._running = None
            await self._arrived.wait()

    async def _serve(self, job: Job) -> None:
        job.put(Started())
        before = self._engine.counters
        try:
            completion = await self._engine.generate(job.ids, job.sampling, self._clocked(job), job.cancelled)
            job.worked = self._engine.counters.since(before)
            job.put(completion)
        except CancelledError as error:
            job.fail(error)
        except UnavailableError as error:
            # The engine was lost; those in the queue would wait for a restart of unknown length.
            job.fail(error)
            self.fail_all(error)
        except EdgeError as error:
            job.fail(error)
        except Exception:
            job.fail(EdgeError("the server failed unexpectedly"))
            raise

    def _check_available(self) -> None:
        if self._is_draining:
            raise UnavailableError("the server is shutting down", "DRAINING")
        self._engine.check_ready()

    def _clocked(self, job: Job) -> Callable[[int], None]:
        """Hands tokens to the job and learns the rates from when they come."""
        last, before = self._clock(), self._engine.counters

        def on_token(token: int) -> None:
            nonlocal last
            now = self._clock()
            if job.pending_prompt_tokens:
                self._rates.prefill.add(len(job.ids), now - last)
                job.pending_prompt_tokens = 0
            else:
                self._rates.decode.add(1, now - last)
            last = now
            job.pending_completion_tokens -= 1
            job.worked = self._engine.counters.since(before)
            job.put(token)

        return on_token

    def _accepted(self) -> list[Job]:
        running = [] if self._running is None else [self._running]
        return [job for job in (*running, *self._waiting) if not job.cancelled.is_set()]

    def _retry_after_s(self) -> float:
        """When the running request should be done, so that one place in the queue becomes free."""
        job = self._running
        if job is None:
            return 1.0
        seconds = self._rates.seconds_for(job.pending_prompt_tokens, job.pending_completion_tokens)
        return FIRST_RETRY_S if seconds is None else float(min(max(1, math.ceil(seconds)), LONGEST_RETRY_S))
