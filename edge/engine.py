"""One model loaded within a memory budget, serving many requests at once.

After any error the engine goes on: the others' states are untouched, a new request begins with a fresh one, and a
failed read leaves no slot behind.
"""

import os
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ids
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from edge import kernels
from edge.batch import Segment
from edge.budget import (
    MemoryPlan,
    logits_block_tokens,
    peak_resident_bytes,
    plan_memory,
    resident_bytes,
    sensible_prefix_bytes,
)
from edge.checkpoint.pack import Pack
from edge.dense_disk import DenseWeights, load_dense
from edge.dense_sizes import DenseSizes
from edge.errors import RequestError
from edge.events import Event, Failed, GenerationStats, Token
from edge.experts.absent import NoExperts
from edge.experts.open_store import StoreOptions, open_store
from edge.experts.store import ExpertStore
from edge.experts.tuning import ReadSetting
from edge.locking import lock_in_ram
from edge.loop import RequestLoop, nothing
from edge.model import Model
from edge.prefix.disk import DiskTier
from edge.prefix.open_store import open_disk
from edge.prefix.snapshot import snapshot_bytes
from edge.prefix.store import PrefixStats, PrefixStore
from edge.profiling import UNTIMED, Watch
from edge.sampler import Sampling
from edge.scheduler import Scheduler
from edge.state import StatePool

log = structlog.get_logger()

# The most prompt tokens in a pass that also decodes: its length is the pause between two tokens of every other request.
# In RAM it grows with the tokens; from disk, nearly all experts are read for few tokens already.
RESIDENT_SHARED_TOKENS, STREAMED_SHARED_TOKENS = 128, 512


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is to run."""

    memory_bytes: int
    context_tokens: int = 4096
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    chunk_tokens: int | None = None  # most tokens of prompts in one pass; None: as many as are worth their memory
    max_sequences: int | None = None  # requests that run at once; None: as many as are worth their memory
    expert_slots: int | None = None  # at most so many experts in RAM, below what the budget allows; for measurements
    prefix_memory_bytes: int | None = 0  # for snapshots of prompts' beginnings; None: as budget.py finds sensible
    prefix_disk_bytes: int = 0  # the most of them that may lie in prefix_dir
    prefix_dir: Path | None = None  # snapshots outlive the engine there, readable as prompts for whoever may read it
    verify: Literal["first", "always", "off"] = "always"  # which reads of an expert are checked against its checksum
    prefetch: bool = True  # read ahead what the next layer is guessed to need, where the disk idles
    reading: ReadSetting | None = None  # how the disk is asked; None: chosen by a short probe where experts stream

    def __post_init__(self) -> None:
        for name in ("memory_bytes", "context_tokens", "threads", "chunk_tokens", "max_sequences", "expert_slots"):
            _check_least(name, getattr(self, name), 1)
        for name in ("prefix_memory_bytes", "prefix_disk_bytes"):
            _check_least(name, getattr(self, name), 0)
        if (self.prefix_dir is None) != (self.prefix_disk_bytes == 0):
            raise RequestError("prefix_dir and prefix_disk_bytes go together: where, and how much at most")
        if self.prefix_dir and self.prefix_memory_bytes == 0:
            raise RequestError("prefix_memory_bytes is 0: snapshots reach prefix_dir through memory")


@dataclass(frozen=True, slots=True)
class EngineStats:
    """The engine since it was loaded."""

    expert_hits: int
    expert_lookups: int
    expert_read_bytes: int
    dense_read_bytes: int
    disk_seconds: float
    experts_resident: int
    expert_slots: int
    memory_bytes: int
    peak_memory_bytes: int
    memory_budget_bytes: int
    prefixes: PrefixStats
    prefetch_bytes: int = 0  # of the expert bytes, those read on a guess
    prefetch_wasted_bytes: int = 0  # and of these, not asked for by the layer that they were meant for
    prefetch_recall: float = 0.0  # share of the experts needed that had been guessed, read or not

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


class Engine:
    """Made by `load`. Not thread-safe.

    Either requests are submitted and `step` is called while it `has_work`, or one iterator of `generate` or
    `logits_blocks` is used at a time, which do the same inside.
    """

    def __init__(
        self,
        pack: Pack,
        options: EngineOptions,
        model: Model,
        dense: DenseWeights,
        store: ExpertStore | NoExperts,
        plan: MemoryPlan,
        prefix_disk: DiskTier | None = None,
    ) -> None:
        self.pack = pack
        self.config = pack.config
        self.context_tokens = options.context_tokens
        self.plan = plan
        self.last = GenerationStats(0)
        self._options = options
        self._model = model
        self._dense = dense
        self._store = store
        self._states = StatePool(pack.config, plan.num_sequences, options.context_tokens)
        has_all_experts = plan.num_slots == pack.config.num_layers * pack.config.num_experts
        is_resident = has_all_experts and not plan.streamed_layers
        scheduler = Scheduler(
            num_places=plan.num_sequences,
            kv_tokens=plan.kv_tokens,
            chunk_tokens=plan.chunk_tokens,
            shared_chunk_tokens=min(
                plan.chunk_tokens, RESIDENT_SHARED_TOKENS if is_resident else STREAMED_SHARED_TOKENS
            ),
        )
        self._prefixes = PrefixStore(pack.config, plan.prefix_bytes, prefix_disk)
        self._requests = RequestLoop(pack.config, model, store, self._states, scheduler, self._prefixes)
        self._own_job = -1  # of `generate`: below zero, so that it meets no submitted one

    @classmethod
    def load(cls, path: Path, options: EngineOptions, progress: Progress = unheard, watch: Watch = UNTIMED) -> Self:
        """Load the packed model at `path`; `progress` is told the dense bytes loaded and all of them.

        `watch` is told what the time goes to.

        Raises PackError, BudgetError, StorageError, PrefixDirectoryError.
        """
        pack = Pack.open(path)
        if options.context_tokens > pack.config.max_positions:
            limits = {"context_tokens": options.context_tokens, "max_positions": pack.config.max_positions}
            log.warning("context_beyond_trained_positions", **limits)
        kernels.set_num_threads(options.threads)
        plan = planned(pack, options)
        with ExitStack() as on_error:
            prefix_disk = None
            if options.prefix_dir:
                prefix_disk = open_disk(options.prefix_dir, options.prefix_disk_bytes, pack)
                on_error.callback(prefix_disk.directory.close)
            dense = load_dense(pack, plan, _counted(progress, pack.dense_nbytes), watch)
            on_error.callback(dense.close)
            store: ExpertStore | NoExperts = NoExperts()
            if pack.config.num_experts:
                how = StoreOptions(options.verify, options.prefetch, options.reading)
                store = open_store(pack, plan.num_slots, how)
            if not lock_in_ram([*dense.arrays, store.memory]):
                log.warning("weights_not_locked_in_ram", bytes=plan.dense_bytes + plan.expert_bytes)
            source = store if isinstance(store, ExpertStore) else None
            model = Model(
                pack.config,
                dense.tensors,
                source,
                watch,
                source,
                stream=dense.stream,
                head=dense.head,
                embedding=dense.embedding,
            )
            engine = cls(pack, options, model, dense, store, plan, prefix_disk)
            on_error.pop_all()
        return engine

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to tell."""
        return len(self._requests) > 0

    def submit(self, job: int, ids: Ids[int], sampling: Sampling, tenant: str = "") -> GenerationStats:
        """A new request under a number that no other one has now; it waits in order of arrival for a place.

        Returns its counters, right at any moment. Raises RequestError.
        """
        return self._requests.submit(job, self._checked(ids), sampling, tenant, self.context_tokens)

    def cancel(self, job: int) -> None:
        """End a request: its rows leave the pass before the next layer. One that has ended is passed over."""
        self._requests.cancel(job)

    def step(self, pulse: Callable[[], None] = nothing) -> list[Event]:
        """One pass of the model over all running sequences, and what came of it.

        `pulse` is called before every layer; it may `submit` and `cancel`. Each request ends in Finished or in Failed,
        with StorageError, with PackError if the weights give logits that are no numbers, or with CancelledError.
        Who starts or leaves before the pass is told at once, without one: it may take long.
        """
        return self._requests.step(pulse)

    def generate(self, ids: Ids[int], sampling: Sampling, should_stop: Callable[[], bool] = never) -> Iterator[int]:
        """The completion's token ids, one by one; an end-of-sequence token ends it and is not among them.

        `should_stop` is asked before every token and before every layer: true raises CancelledError. Raises
        RequestError at once; while running StorageError or PackError. `last` holds the counters, right at any moment.
        The next call of `generate` ends an iterator that was left before its end.
        """
        return self._generate(self._checked(ids), sampling, should_stop)

    def _generate(self, ids: list[int], sampling: Sampling, should_stop: Callable[[], bool]) -> Iterator[int]:
        self._requests.discard(self._own_job)
        self._own_job -= 1
        job = self._own_job
        self.last = self._requests.submit(job, ids, sampling, "", self.context_tokens)

        def pulse() -> None:
            if should_stop():
                self.cancel(job)

        while job in self._requests:
            pulse()
            for event in self.step(pulse):
                match event:
                    case Token(job=owner, token=token) if owner == job:
                        yield token
                    case Failed(job=owner, error=error) if owner == job:
                        raise error

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
        self._requests.discard(self._own_job)
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

    @property
    def experts(self) -> ExpertStore | NoExperts:
        """The store of routed experts, for measurements."""
        return self._store

    def stats(self) -> EngineStats:
        """Counters and memory at this moment."""
        store, dense = self._store.stats(), self._dense.counters()
        return EngineStats(
            expert_hits=store.hits,
            expert_lookups=store.lookups,
            expert_read_bytes=store.read_bytes,
            dense_read_bytes=dense.bytes_read,
            disk_seconds=max(store.disk_seconds, dense.busy_seconds),  # they read at the same time
            experts_resident=self._store.num_resident,
            expert_slots=self._store.num_slots,
            memory_bytes=resident_bytes(),
            peak_memory_bytes=peak_resident_bytes(),
            memory_budget_bytes=self._options.memory_bytes,
            prefixes=self._prefixes.stats(),
            prefetch_bytes=store.prefetch_bytes,
            prefetch_wasted_bytes=store.wasted_bytes,
            prefetch_recall=store.lookahead.recall,
        )

    def forget(self, tenant: str) -> None:
        """Remove all that a tenant's prompts left behind; those that still run leave theirs in the end.

        Raises OSError if something stays on disk.
        """
        self._prefixes.forget(tenant)

    def close(self) -> None:
        """End the reading and writing threads; nothing else may be called afterwards."""
        self._store.close()
        self._dense.close()
        self._prefixes.close()

    def _checked(self, ids: Ids[int]) -> list[int]:
        ids = list(ids)
        if not ids:
            raise RequestError("the prompt is empty: it needs at least one token")
        if len(ids) > self.context_tokens:
            raise RequestError(f"the prompt has {len(ids)} tokens: the context holds {self.context_tokens}")
        for token in (min(ids), max(ids)):
            _check_range("token id", token, 0, self.config.vocab_size - 1)
        return ids


def planned(pack: Pack, options: EngineOptions) -> MemoryPlan:
    """How this process, as big as it is now, would share its memory out. Raises BudgetError."""
    return plan_memory(
        pack.config,
        pack.manifest.contents.experts,
        dense=DenseSizes.of(pack.manifest.contents),
        baseline_bytes=resident_bytes(),
        memory_bytes=options.memory_bytes,
        context_tokens=options.context_tokens,
        chunk_tokens=options.chunk_tokens,
        most_slots=options.expert_slots,
        max_sequences=options.max_sequences,
        prefix_bytes=_wished_prefix_bytes(options, pack),
    )


def _counted(progress: Progress, total: int) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return advance


def _wished_prefix_bytes(options: EngineOptions, pack: Pack) -> int | None:
    if options.prefix_memory_bytes is None and options.prefix_dir:
        # Through memory that holds no full context, nothing of a long prompt would reach the disk.
        least = snapshot_bytes(pack.config, options.context_tokens)
        return max(least, sensible_prefix_bytes(pack.config, options.memory_bytes, options.context_tokens))
    return options.prefix_memory_bytes


def _check_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise RequestError(f"{name} is {value}: it must be at least {least}")


def _check_range(name: str, value: int, least: int, most: int | None) -> None:
    if value < least or (most is not None and value > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise RequestError(f"{name} is {value}: it must be {limit}")
