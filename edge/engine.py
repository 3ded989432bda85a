"""One model loaded within a memory budget, serving many requests at once.

After any error the engine goes on: the others' states are untouched, a new request begins with a fresh one, and a
failed read leaves no slot behind.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Batch, Segment
from edge.budget import MemoryPlan, logits_block_tokens, peak_resident_bytes, plan_memory, resident_bytes
from edge.checkpoint.matrix import Matrix
from edge.checkpoint.pack import Pack
from edge.errors import CancelledError, EdgeError, PackError, RequestError, StorageError
from edge.events import Event, Failed, Finished, GenerationStats, Started, Token
from edge.experts.store import ExpertStore
from edge.locking import lock_in_ram
from edge.model import Model
from edge.sampler import SamplingParams
from edge.scheduler import Plan, Scheduler
from edge.sequence import Reads, Sequence
from edge.state import StatePool

log = structlog.get_logger()

# In RAM a chunk costs time in proportion to its tokens: shorter ones beside decoding make its pauses short, too.
RESIDENT_CHUNK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is to run."""

    memory_bytes: int
    context_tokens: int = 4096
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    chunk_tokens: int | None = None  # most tokens of prompts in one pass; None: as many as are worth their memory
    max_sequences: int | None = None  # requests that run at once; None: as many as are worth their memory
    expert_slots: int | None = None  # at most so many experts in RAM, below what the budget allows; for measurements
    prefix_memory_bytes: int = 0  # for snapshots of prompts' beginnings
    prefix_disk_bytes: int = 0
    prefix_dir: Path | None = None
    verify: Literal["first", "always", "off"] = "always"  # which reads of an expert are checked against its checksum

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "context_tokens", "threads", "chunk_tokens", "max_sequences", "expert_slots"):
            _check_least(name, getattr(self, name), 1)
        for name in ("prefix_memory_bytes", "prefix_disk_bytes"):
            _check_least(name, getattr(self, name), 0)


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine since it was loaded."""

    expert_hits: int
    expert_lookups: int
    expert_read_bytes: int
    disk_seconds: float
    experts_resident: int
    expert_slots: int
    memory_bytes: int
    peak_memory_bytes: int
    memory_budget_bytes: int

    @property
    def hit_rate(self) -> float:
        """Share of expert look-ups answered from RAM; 0 before the first."""
        return self.expert_hits / self.expert_lookups if self.expert_lookups else 0.0


Progress = Callable[[int, int], None]


def unheard(done: int, total: int) -> None:
    """Progress that nobody follows."""


def never() -> bool:
    """Nobody wants to stop."""
    return False


def nothing() -> None:
    """A pulse that nobody feels."""


class Engine:
    """Made by `load`. Not thread-safe.

    Either requests are submitted and `step` is called while it `has_work`, or one iterator of `generate` or
    `logits_blocks` is used at a time, which do the same inside.
    """

    def __init__(self, pack: Pack, options: EngineOptions, model: Model, store: ExpertStore, plan: MemoryPlan) -> None:
        self.pack = pack
        self.config = pack.config
        self.context_tokens = options.context_tokens
        self.plan = plan
        self.last = GenerationStats(0)
        self._options = options
        self._model = model
        self._store = store
        self._states = StatePool(pack.config, plan.num_sequences, options.context_tokens)
        is_resident = plan.num_slots == pack.config.num_layers * pack.config.num_experts
        self._scheduler = Scheduler(
            num_places=plan.num_sequences,
            kv_tokens=plan.kv_tokens,
            chunk_tokens=plan.chunk_tokens,
            shared_chunk_tokens=min(plan.chunk_tokens, RESIDENT_CHUNK_TOKENS) if is_resident else plan.chunk_tokens,
        )
        self._sequences: dict[int, Sequence] = {}
        self._cancelled: set[int] = set()
        self._own_job = 0  # of `generate`: below zero, so that it meets no submitted one

    @classmethod
    def load(cls, path: Path, options: EngineOptions, progress: Progress = unheard) -> Self:
        """Load the packed model at `path`; `progress` is told the dense bytes loaded and all of them.

        Raises PackError, BudgetError, StorageError.
        """
        pack = Pack.open(path)
        if options.context_tokens > pack.config.max_positions:
            limits = {"context_tokens": options.context_tokens, "max_positions": pack.config.max_positions}
            log.warning("context_beyond_trained_positions", **limits)
        kernels.set_num_threads(options.threads)
        plan = plan_memory(
            pack.config,
            pack.experts,
            dense_bytes=pack.dense_nbytes,
            baseline_bytes=resident_bytes(),
            memory_bytes=options.memory_bytes,
            context_tokens=options.context_tokens,
            chunk_tokens=options.chunk_tokens,
            most_slots=options.expert_slots,
            max_sequences=options.max_sequences,
            prefix_bytes=options.prefix_memory_bytes,
        )
        tensors = pack.load_dense(_counted(progress, pack.dense_nbytes))
        store = ExpertStore(pack, plan.num_slots, kernels.ExpertReader(pack.expert_paths))
        dense = [tensor.data if isinstance(tensor, Matrix) else tensor for tensor in tensors.values()]
        if not lock_in_ram([*dense, store.memory]):
            log.warning("weights_not_locked_in_ram", bytes=plan.dense_bytes + plan.expert_bytes)
        return cls(pack, options, Model(pack.config, tensors, store), store, plan)

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to tell."""
        return bool(self._sequences)

    def submit(self, job: int, ids: Ids[int], sampling: SamplingParams, tenant: str = "") -> None:
        """A new request under a number that no other one has now; it waits in order of arrival for a place.

        Raises RequestError.
        """
        ids = self._checked(ids)
        if job in self._sequences:
            raise RequestError(f"job {job} is still there: its number is not free")
        self._sequences[job] = Sequence(job, ids, sampling, tenant)
        self._scheduler.submit(job, len(ids), min(len(ids) + sampling.max_tokens, self.context_tokens))

    def cancel(self, job: int) -> None:
        """End a request: its rows leave the pass before the next layer. One that has ended is passed over."""
        if job in self._sequences:
            self._cancelled.add(job)

    def step(self, pulse: Callable[[], None] = nothing) -> list[Event]:
        """One pass of the model over all running sequences, and what came of it.

        `pulse` is called before every layer; it may `submit` and `cancel`. Each request ends in Finished or in Failed,
        with StorageError, with PackError if the weights give logits that are no numbers, or with CancelledError.
        """
        events: list[Event] = [*self._sweep(), *self._admit()]
        plan = self._scheduler.plan()
        if plan:
            events += self._run(plan, pulse)
        return [*events, *self._sweep()]

    def _sweep(self) -> list[Event]:
        """End those that were cancelled."""
        leaving = [job for job in self._sequences if job in self._cancelled]
        self._cancelled.clear()
        return [self._fail(job, CancelledError("the request was cancelled")) for job in leaving]

    def _admit(self) -> list[Event]:
        jobs = self._scheduler.admit()
        for job in jobs:
            self._sequences[job].start(self._states.take())
        return [Started(job) for job in jobs]

    def _run(self, plan: Plan, pulse: Callable[[], None]) -> list[Event]:
        began, reads_before = time.perf_counter(), self._store.stats()
        running = [self._sequences[job] for job in (*plan.decoding, *plan.prompts)]
        segments = [sequence.segment(plan.prompts.get(sequence.job, 1)) for sequence in running]
        batch = self._model.batch(segments)

        def before_layer() -> list[int]:
            pulse()
            return [index for index, sequence in enumerate(running) if sequence.job in self._cancelled]

        try:
            self._model.run(batch, before_layer)
        except StorageError as error:  # of weights that every sequence needs
            return [self._fail(sequence.job, error) for sequence in running if sequence.job not in self._cancelled]
        for job in (running[index].job for index in batch.kept):
            if job in plan.prompts:
                self._scheduler.advance(job, plan.prompts[job])
        seconds = time.perf_counter() - began
        reads = Reads.between(reads_before, self._store.stats()).shared([len(part.ids) for part in segments])
        for sequence, share in zip(running, reads, strict=True):
            sequence.count_pass(seconds, share)
        events = self._draw([(index, running[index]) for index in batch.kept if running[index].is_computed], batch)
        events += [self._fail(running[index].job, error) for index, error in batch.errors.items()]
        self._scheduler.ran(plan, time.perf_counter() - began)
        return events

    def _draw(self, ready: list[tuple[int, Sequence]], batch: Batch) -> list[Event]:
        """The next token of each sequence that has gone through the model as far as it goes."""
        if not ready:
            return []
        logits = self._model.logits(batch.last_rows([index for index, _ in ready]))
        events: list[Event] = []
        for (_, sequence), row in zip(ready, logits, strict=True):
            if not math.isfinite(row.max()):  # NaN carries through to the maximum
                text = f"{self.pack.path}: the logits are not finite: no text can be drawn from these weights"
                events.append(self._fail(sequence.job, PackError(text)))
                continue
            token = sequence.draw(row, self.config)
            if token is not None:
                events.append(Token(sequence.job, token))
            if sequence.stats.finish_reason:
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

    def generate(
        self, ids: Ids[int], sampling: SamplingParams, should_stop: Callable[[], bool] = never
    ) -> Iterator[int]:
        """The completion's token ids, one by one; an end-of-sequence token ends it and is not among them.

        `should_stop` is asked before every token and before every layer: true raises CancelledError. Raises
        RequestError at once; while running StorageError or PackError. `last` holds the counters, right at any moment.
        The next call of `generate` ends an iterator that was left before its end.
        """
        return self._generate(self._checked(ids), sampling, should_stop)

    def _generate(self, ids: list[int], sampling: SamplingParams, should_stop: Callable[[], bool]) -> Iterator[int]:
        self._end_own()
        self._own_job -= 1
        job = self._own_job
        self.submit(job, ids, sampling)
        self.last = self._sequences[job].stats

        def pulse() -> None:
            if should_stop():
                self.cancel(job)

        while job in self._sequences:
            pulse()
            for event in self.step(pulse):
                match event:
                    case Token(job=owner, token=token) if owner == job:
                        yield token
                    case Failed(job=owner, error=error) if owner == job:
                        raise error

    def _end_own(self) -> None:
        if self._own_job in self._sequences:
            self._end(self._own_job)

    def logits(
        self, ids: Ids[int], chunk_tokens: int | None = None, prompt_tokens: int | None = None
    ) -> NDArray[np.float32]:
        """f32[T, vocab] of all positions; see `logits_blocks`."""
        out = np.empty((len(ids), self.config.vocab_size), np.float32)
        start = 0
        for block in self.logits_blocks(ids, chunk_tokens, prompt_tokens):
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def logits_blocks(
        self, ids: Ids[int], chunk_tokens: int | None = None, prompt_tokens: int | None = None
    ) -> Iterator[NDArray[np.float32]]:
        """The logits of all positions in order, f32[n, vocab] with a bounded n.

        The first `prompt_tokens` ids (default: all) are computed in chunks of at most `chunk_tokens` (default and
        limit: the plan's), the others one by one. The values depend on neither. Raises RequestError, StorageError.
        """
        ids = self._checked(ids)
        num_prompt = len(ids) if prompt_tokens is None else prompt_tokens
        _check_range("prompt_tokens", num_prompt, 0, len(ids))
        chunk = self.plan.chunk_tokens if chunk_tokens is None else chunk_tokens
        _check_range("chunk_tokens", chunk, 1, None)
        return self._logits_blocks(ids, min(chunk, self.plan.chunk_tokens), num_prompt)

    def _logits_blocks(self, ids: list[int], chunk: int, num_prompt: int) -> Iterator[NDArray[np.float32]]:
        self._end_own()
        state = self._states.take()
        try:
            block = logits_block_tokens(self.config)
            parts = [ids[i : min(i + chunk, num_prompt)] for i in range(0, num_prompt, chunk)]
            parts += [[token] for token in ids[num_prompt:]]
            for part in parts:
                hidden = self._model.forward([Segment(part, state)])
                for start in range(0, len(part), block):
                    yield self._model.logits(hidden[start : start + block])
        finally:
            self._states.give_back(state)

    def stats(self) -> EngineStats:
        """Counters and memory at this moment."""
        store = self._store.stats()
        return EngineStats(
            expert_hits=store.hits,
            expert_lookups=store.lookups,
            expert_read_bytes=store.read_bytes,
            disk_seconds=store.disk_seconds,
            experts_resident=self._store.num_resident,
            expert_slots=self._store.num_slots,
            memory_bytes=resident_bytes(),
            peak_memory_bytes=peak_resident_bytes(),
            memory_budget_bytes=self._options.memory_bytes,
        )

    def close(self) -> None:
        """End the reading threads; nothing else may be called afterwards."""
        self._store.close()

    def _checked(self, ids: Ids[int]) -> list[int]:
        ids = list(ids)
        if not ids:
            raise RequestError("the prompt is empty: it needs at least one token")
        if len(ids) > self.context_tokens:
            raise RequestError(f"the prompt has {len(ids)} tokens: the context holds {self.context_tokens}")
        for token in (min(ids), max(ids)):
            _check_range("token id", token, 0, self.config.vocab_size - 1)
        return ids


def _counted(progress: Progress, total: int) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return advance


def _check_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise RequestError(f"{name} is {value}: it must be at least {least}")


def _check_range(name: str, value: int, least: int, most: int | None) -> None:
    if value < least or (most is not None and value > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise RequestError(f"{name} is {value}: it must be {limit}")
