"""All requests of an engine from submission to end, one pass of the model after another."""

import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ids

import numpy as np

from edge.batch import Batch, Segment
from edge.config import ModelConfig
from edge.deviation import counted
from edge.errors import CancelledError, EdgeError, RequestError, StorageError
from edge.events import Event, Failed, Finished, GenerationStats, Started, Token
from edge.experts.absent import NoExperts
from edge.experts.store import ExpertStore
from edge.model import Model
from edge.outcome import Outcome, drawn
from edge.prefix.store import PrefixStore
from edge.sampler import Sampling
from edge.scheduler import Plan, Scheduler
from edge.sequence import Reads, Sequence
from edge.speculation.proposal import Proposal
from edge.speculation.speculation import Speculation
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
        speculation: Speculation | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._store = store
        self._states = states
        self._scheduler = scheduler
        self._prefixes = prefixes
        self._speculation = speculation
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
        self._store.new_pass()
        proposals = self._propose([self._sequences[job] for job in plan.decoding])

        def before_layer() -> list[int]:
            pulse()
            return [index for index, sequence in enumerate(running) if sequence.job in self._cancelled]

        try:
            batch = self._model.batch([self._segment(sequence, plan, proposals) for sequence in running])
            self._model.run(batch, before_layer)
            kept = [(index, running[index]) for index in batch.kept]
            outcomes = self._draw_all(batch, [(index, sequence) for index, sequence in kept if sequence.is_computed])
            if self._speculation:
                self._speculation.follow(batch)
                for outcome in outcomes:
                    if outcome.sequence.stats.finish_reason and outcome.sequence.visit.may_keep:
                        self._speculation.catch_up(outcome.sequence.state)
        except StorageError as error:  # of weights that every sequence needs
            return self._fail_all(running, error)
        for index, sequence in kept:
            counts = counted(batch.routing[index])
            sequence.stats.routing += counts
            if counts.substituted:
                sequence.visit.spoil()
            sequence.visit.computed()

        seconds = time.perf_counter() - began
        self._scheduler.ran(plan, seconds)
        self._count(plan, running, batch, seconds, Reads.between(before, self._store.stats()))
        if self._speculation and not plan.prompts:
            tokens = sum(len(outcome.tokens) for outcome in outcomes)
            self._speculation.took(len(running), tokens, seconds, is_drafted=bool(proposals))
        failed: list[Event] = [self._fail(running[index].job, error) for index, error in batch.errors.items()]
        return failed + [event for outcome in outcomes for event in self._conclude(outcome)]

    def _fail_all(self, running: list[Sequence], error: StorageError) -> list[Event]:
        return [self._fail(sequence.job, error) for sequence in running if sequence.job not in self._cancelled]

    def _count(self, plan: Plan, running: list[Sequence], batch: Batch, seconds: float, reads: Reads) -> None:
        parts = reads.shared([len(segment.ids) for segment in batch.segments])
        for sequence, part in zip(running, parts, strict=True):
            sequence.count_pass(seconds, part, is_prompt=sequence.job in plan.prompts)

    def _propose(self, decoding: list[Sequence]) -> dict[int, Proposal]:
        """Guesses of what follows the tokens that the next pass computes, by job."""
        if self._speculation is None:
            return {}
        proposals = self._speculation.propose([sequence.draft_request() for sequence in decoding])
        return {s.job: proposal for s, proposal in zip(decoding, proposals, strict=True) if proposal}

    def _segment(self, sequence: Sequence, plan: Plan, proposals: dict[int, Proposal]) -> Segment:
        num_tokens = plan.prompts.get(sequence.job)
        if num_tokens is None:
            return sequence.segment(1, proposals.get(sequence.job))
        self._scheduler.advance(sequence.job, num_tokens)
        return sequence.segment(num_tokens)

    def _draw_all(self, batch: Batch, ready: list[tuple[int, Sequence]]) -> list[Outcome]:
        """What the pass brings those whose tokens have all gone through the model. Raises StorageError."""
        if not ready:
            return []
        rows = [batch.last_rows(index) for index, _ in ready]
        logits = self._model.logits(np.concatenate(rows))
        parts = np.split(logits, np.cumsum([len(part) for part in rows])[:-1])
        outcomes = [drawn(sequence, part, self._config) for (_, sequence), part in zip(ready, parts, strict=True)]
        if self._speculation:
            self._speculation.checked([sequence.settle() for _, sequence in ready])
        return outcomes

    def _conclude(self, outcome: Outcome) -> Iterator[Event]:
        """Tell what was drawn; end the request if that was the last of it."""
        sequence = outcome.sequence
        yield from (Token(sequence.job, token) for token in outcome.tokens)
        if outcome.error:
            yield self._fail(sequence.job, outcome.error)
        elif sequence.stats.finish_reason:
            sequence.visit.finished()
            self._end(sequence.job)
            yield Finished(sequence.job, sequence.stats.finish_reason, sequence.stats)

    def _fail(self, job: int, error: EdgeError) -> Failed:
        self._end(job)
        return Failed(job, error)

    def _end(self, job: int) -> None:
        self._scheduler.remove(job)
        state = self._sequences.pop(job).end()
        if state is not None:
            self._states.give_back(state)
