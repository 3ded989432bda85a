"""Who may use the engine, and when: so many at once, a limited queue before them.

A place that becomes free goes to the tenant that has the fewest; among those, and within a tenant, first come first
served. So who sends many requests waits for itself, and others only for one of these.
"""

import asyncio
import heapq
import math
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from edge.errors import EdgeError, OverloadedError, UnavailableError
from edge.server.engine_call import Listener, Prompt
from edge.server.pipe import Worked
from edge.server.rates import Rates

# What a caller is told to wait before anything was measured, and the most it is told.
FIRST_RETRY_S = 5.0
LONGEST_RETRY_S = 600.0


class EngineClient(Protocol):
    """What admission needs of the engine; edge.server.supervisor.Supervisor, or a fake in tests."""

    @property
    def num_sequences(self) -> int:
        """How many requests run at once."""

    def check_ready(self) -> None: ...

    def start(self, prompt: Prompt, listener: Listener) -> int: ...

    def cancel(self, job: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Started:
    """The request left the queue."""


@dataclass(frozen=True, slots=True)
class Completion:
    """How a request of the engine ended: "stop" or "length"."""

    reason: str


Happening = Started | int | Completion


class Job:
    """One accepted request. Tokens wait here for a slow reader, at most a context of them: the engine never waits.

    It waits in the queue, is given to the engine, has started there, and has ended: in this order.
    """

    def __init__(self, prompt: Prompt, context_tokens: int, admission: "Admission") -> None:
        self.prompt = prompt
        self.pending_prompt_tokens = len(prompt.ids)
        # The last token of an answer is not read back in, so it needs no place in the context.
        self.pending_completion_tokens = min(prompt.sampling.max_tokens, context_tokens - len(prompt.ids) + 1)
        self.has_started = False
        self.is_cancelled = False
        self.worked = Worked()
        self._admission = admission
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
        if not self.is_cancelled:
            self.is_cancelled = True
            self._admission.withdraw(self)

    def fail(self, error: EdgeError) -> None:
        """End the job for its caller; what was put before still comes first."""
        self._error = self._error or error
        self._has_news.set()

    # The engine's Listener.

    def started(self) -> None:
        self.has_started = True
        self._put(Started())

    def token(self, token: int, worked: Worked) -> None:
        self.pending_prompt_tokens = 0
        self.pending_completion_tokens -= 1
        self.worked = worked
        self._put(token)

    def finished(self, reason: str, worked: Worked) -> None:
        self.worked = worked
        self._put(Completion(reason))
        self._admission.leave(self)

    def failed(self, error: EdgeError) -> None:
        self.fail(error)
        if isinstance(error, UnavailableError):
            # The engine was lost; those in the queue would wait for a restart of unknown length.
            self._admission.fail_all(error)
        self._admission.leave(self)

    def _put(self, happening: Happening) -> None:
        self._news.append(happening)
        self._has_news.set()


class Admission:
    """limit: the most that may wait beside those that run."""

    def __init__(self, engine: EngineClient, rates: Rates, limit: int) -> None:
        self.limit = limit
        self._engine = engine
        self._rates = rates
        self._waiting: deque[Job] = deque()
        self._given: dict[Job, int] = {}  # to the engine, with the numbers they have there
        self._is_draining = False
        self._num_places = 0

    @property
    def queue_depth(self) -> int:
        """Also those that the engine was given and has no memory for yet."""
        given = sum(not job.has_started and not job.is_cancelled for job in tuple(self._given))
        return len(self._waiting) + given

    @property
    def num_running(self) -> int:
        return sum(job.has_started for job in tuple(self._given))

    @property
    def num_sequences(self) -> int:
        """The most that run at once."""
        return self._engine.num_sequences

    @property
    def pending_prompt_tokens(self) -> int:
        return sum(job.pending_prompt_tokens for job in self._accepted())

    @property
    def pending_completion_tokens(self) -> int:
        return sum(job.pending_completion_tokens for job in self._accepted())

    @property
    def steps_until_place(self) -> int:
        """Tokens that each running request draws before one that came now would have a place; 0 if one is free.

        As if every answer were as long as it may be, and all of one tenant. Waiting for the memory of a context is not
        foreseen.
        """
        places = [0] * self._engine.num_sequences
        for job in self._accepted():
            heapq.heapreplace(places, places[0] + job.pending_completion_tokens)
        return places[0]

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue while a request is being encoded, so that their number and memory are bounded too.

        Raises: UnavailableError while no request can be taken at all, OverloadedError while the queue is full.
        """
        self._check_available()
        if len(self._accepted()) + self._num_places >= self.limit + self._engine.num_sequences:
            raise OverloadedError(f"the queue is full: at most {self.limit} may wait", self._retry_after_s())
        self._num_places += 1
        try:
            yield
        finally:
            self._num_places -= 1

    def submit(self, prompt: Prompt, context_tokens: int) -> Job:
        """Queue a request that holds a place. Raises: UnavailableError if that came to an end meanwhile."""
        self._check_available()
        job = Job(prompt, context_tokens, self)
        self._waiting.append(job)
        self._fill_places()
        return job

    def drain(self) -> None:
        """Take no more requests; those accepted go on."""
        self._is_draining = True

    def fail_all(self, error: EdgeError) -> None:
        """End every accepted request with `error`."""
        for job in self._accepted():
            job.fail(error)
            job.cancel()

    def withdraw(self, job: Job) -> None:
        """A job was cancelled. In the queue it leaves at once; in the engine its place is free when that lets go."""
        if job in self._given:
            self._engine.cancel(self._given[job])
        elif job in self._waiting:
            self._waiting.remove(job)

    def leave(self, job: Job) -> None:
        """The engine is done with a job."""
        self._given.pop(job, None)
        self._fill_places()

    def _fill_places(self) -> None:
        while self._waiting and len(self._given) < self._engine.num_sequences:
            job = self._next_waiting()
            self._waiting.remove(job)
            try:
                self._given[job] = self._engine.start(job.prompt, job)
            except UnavailableError as error:
                job.fail(error)

    def _next_waiting(self) -> Job:
        places = Counter(job.prompt.tenant for job in self._given)
        return min(self._waiting, key=lambda job: places[job.prompt.tenant])

    def _check_available(self) -> None:
        if self._is_draining:
            raise UnavailableError("the server is shutting down", "DRAINING")
        self._engine.check_ready()

    def _accepted(self) -> list[Job]:
        return [job for job in (*self._given, *self._waiting) if not job.is_cancelled]

    def _retry_after_s(self) -> float:
        """When the first of the running requests should be done, so that one place in the queue becomes free."""
        running = [job for job in self._given if not job.is_cancelled]
        if not running:
            return 1.0
        prompt_tokens = sum(job.pending_prompt_tokens for job in running)
        seconds = self._rates.seconds_for(prompt_tokens, min(job.pending_completion_tokens for job in running))
        return FIRST_RETRY_S if seconds is None else float(min(max(1, math.ceil(seconds)), LONGEST_RETRY_S))
