"""All requests of an engine from submission to end, one pass of the model after another."""

import math
import time
from collections.abc import Callable
from collections.abc import Sequence as Ids

import numpy as np
from numpy.typing import NDArray

from edge.batch import Batch
from edge.config import ModelConfig
from edge.deviation import counted
from edge.errors import CancelledError, EdgeError, PackError, RequestError, StorageError
from edge.events import Event, Failed, Finished, GenerationStats, Started, Token
from edge.experts.absent import NoExperts
from edge.experts.store import ExpertStore
from edge.model import Model
from edge.prefix.store import PrefixStore
from edge.sampler import Sampling
from edge.scheduler import Plan, Scheduler
from edge.sequence import Reads, Sequence
from edge.state import StatePool


def nothing() -> None:
    """A pulse that nobody feels."""


class RequestLoop:
    """Not thread-safe. The contract of its methods: edge.engine.Engine."""

    def __init__(
        self,
        config: ModelConfig,
        model: Model,
        store: ExpertStore | NoExperts,
        states: StatePool,
        scheduler: Scheduler,
        prefixes: PrefixStore,
    ) -> None:
        self._config = config
        self._model = model
        self._store = store
        self._states = states
        self._scheduler = scheduler
        self._prefixes = prefixes
        self._sequences: dict[int, Sequence] = {}  # waiting and running
        self._cancelled: set[int] = set()

    def __contains__(self, job: int) -> bool:
        return job in self._sequences

    def __len__(self) -> int:
        return len(self._sequences)

    def submit(self, job: int, ids: Ids[int], sampling: Sampling, tenant: str, capacity: int) -> GenerationStats:
        """A new request for at most `capacity` tokens, prompt and answer; its counters, kept up to date."""
        if job in self._sequences:
            raise RequestError(f"job {job} is still there: its number is not free")
        sequence = self._sequences[job] = Sequence(job, ids, sampling, tenant)
        self._scheduler.submit(job, len(ids), min(len(ids) + sampling.max_tokens, capacity))
        return sequence.stats

    def cancel(self, job: int) -> None:
        """End the request at the next layer's boundary."""
        if job in self._sequences:
            self._cancelled.add(job)

    def discard(self, job: int) -> None:
        """End the request without a word, between two passes."""
        if job in self._sequences:
            self._end(job)

    def step(self, pulse: Callable[[], None]) -> list[Event]:
        """One pass, and what came of it; or who starts or leaves before it."""
        events: list[Event] = [*self._sweep(), *self._admit()]
        if events:
            return events
        plan = self._scheduler.plan()
        return [*(self._run(plan, pulse) if plan else ()), *self._sweep()]

    def _sweep(self) -> list[Event]:
        """End those that were cancelled."""
        leaving = [job for job in self._sequences if job in self._cancelled]
        self._cancelled.clear()
        return [self._fail(job, CancelledError("the request was cancelled")) for job in leaving]

    def _admit(self) -> list[Event]:
        jobs = self._scheduler.admit()
        for job in jobs:
            sequence, state = self._sequences[job], self._states.take()
            sequence.start(state, self._prefixes.begin(sequence.tenant, sequence.ids, state))
            self._scheduler.advance(job, state.length)
        return [Started(job) for job in jobs]

    def _run(self, plan: Plan, pulse: Callable[[], None]) -> list[Event]:
        began, before = time.perf_counter(), self._store.stats()
        running = [self._sequences[job] for job in (*plan.decoding, *plan.prompts)]

        def before_layer() -> list[int]:
            pulse()
            return [index for index, sequence in enumerate(running) if sequence.job in self._cancelled]

        try:
            batch = self._model.batch([sequence.segment(plan.prompts.get(sequence.job, 1)) for sequence in running])
            self._model.run(batch, before_layer)
        except StorageError as error:  # of weights that every sequence needs
            return self._fail_all(running, error)
        kept = [(index, running[index]) for index in batch.kept]
        for index, sequence in kept:
            counts = counted(batch.routing[index])
            sequence.stats.routing += counts
            if counts.substituted:
                sequence.visit.spoil()
            sequence.visit.computed()
            if sequence.job in plan.prompts:
                self._scheduler.advance(sequence.job, plan.prompts[sequence.job])
        ready = [(index, sequence) for index, sequence in kept if sequence.is_computed]
        try:
            logits = self._model.logits(batch.last_rows([index for index, _ in ready])) if ready else ()
        except StorageError as error:
            return self._fail_all(running, error)

        seconds = time.perf_counter() - began
        self._scheduler.ran(plan, seconds)
        self._count(running, batch, seconds, Reads.between(before, self._store.stats()))
        failed: list[Event] = [self._fail(running[index].job, error) for index, error in batch.errors.items()]
        return failed + [
            event for (_, sequence), row in zip(ready, logits, strict=True) for event in self._draw(sequence, row)
        ]

    def _fail_all(self, running: list[Sequence], error: StorageError) -> list[Event]:
        return [self._fail(sequence.job, error) for sequence in running if sequence.job not in self._cancelled]

    def _count(self, running: list[Sequence], batch: Batch, seconds: float, reads: Reads) -> None:
        parts = reads.shared([len(segment.ids) for segment in batch.segments])
        for sequence, part in zip(running, parts, strict=True):
            sequence.count_pass(seconds, part)

    def _draw(self, sequence: Sequence, logits: NDArray[np.float32]) -> list[Event]:
        """The next token of a sequence that has gone through the model as far as it goes."""
        if not math.isfinite(logits.max()):  # NaN carries through to the maximum
            text = "the logits are not finite: no text can be drawn from these weights"
            return [self._fail(sequence.job, PackError(text))]
        token = sequence.draw(logits, self._config)
        events: list[Event] = [] if token is None else [Token(sequence.job, token)]
        if sequence.stats.finish_reason:
            sequence.visit.finished()
            self._end(sequence.job)
            events.append(Finished(sequence.job, sequence.stats.finish_reason, sequence.stats))
        return events

    def _fail(self, job: int, error: EdgeError) -> Failed:
        self._end(job)
        return Failed(job, error)

    def _end(self, job: int) -> None:
        self._scheduler.remove(job)
        state = self._sequences.pop(job).end()
        if state is not None:
            self._states.give_back(state)
