"""One model loaded within a memory budget, serving many requests at once.

After any error the engine goes on: the others' states are untouched, a new request begins with a fresh one, and a
failed read leaves no slot behind.
"""

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ids
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.batch import Segment
from edge.budget import logits_block_tokens, peak_resident_bytes, resident_bytes
from edge.dense_disk import DenseWeights
from edge.deviation import NOT_COUNTED
from edge.engine_options import EngineOptions
from edge.engine_parts import EngineParts, Progress, open_parts, unheard
from edge.engine_stats import EngineStats
from edge.errors import RequestError
from edge.events import Event, Failed, GenerationStats, Token
from edge.experts.absent import NoExperts
from edge.experts.store import ExpertStore
from edge.loop import RequestLoop, nothing
from edge.prefix.store import PrefixStore
from edge.profiling import UNTIMED, Watch
from edge.sampler import Sampling
from edge.scheduler import Scheduler
from edge.speculation.drafter import MtpDrafter
from edge.speculation.gate import CostGate
from edge.speculation.speculation import NOTHING_DRAFTED, AlwaysOpen, Speculation
from edge.state import StatePool

# The most prompt tokens in a pass that also decodes: its length is the pause between two tokens of every other request.
# In RAM it grows with the tokens; from disk, nearly all experts are read for few tokens already.
RESIDENT_SHARED_TOKENS, STREAMED_SHARED_TOKENS = 128, 512


def never() -> bool:
    """Nobody wants to stop."""
    return False


class Engine:
    """Made by `load`. Not thread-safe.

    Either requests are submitted and `step` is called while it `has_work`, or one iterator of `generate` or
    `logits_blocks` is used at a time, which do the same inside.
    """

    def __init__(self, parts: EngineParts, options: EngineOptions) -> None:
        config, plan = parts.pack.config, parts.plan
        self.pack = parts.pack
        self.config = config
        self.context_tokens = options.context_tokens
        self.plan = plan
        self.deviation = parts.deviation  # None: the answers are the model's own
        self.last = GenerationStats(0)
        self._options = options
        self._model = parts.model
        self._dense = parts.dense
        self._store = parts.store
        self._leeway = parts.leeway
        speculation = None
        if parts.mtp:
            gate = CostGate() if options.speculate == "auto" else AlwaysOpen()
            speculation = Speculation(MtpDrafter(config, parts.model, parts.mtp), gate, options.draft_tokens)
        self._speculation = speculation
        num_spares = options.draft_tokens if speculation else 0
        self._states = StatePool(config, plan.num_sequences, options.context_tokens, num_spares)
        has_all_experts = plan.num_slots == config.total_experts
        is_resident = has_all_experts and not plan.streamed_layers
        scheduler = Scheduler(
            num_places=plan.num_sequences,
            kv_tokens=plan.kv_tokens,
            chunk_tokens=plan.chunk_tokens,
            shared_chunk_tokens=min(
                plan.chunk_tokens, RESIDENT_SHARED_TOKENS if is_resident else STREAMED_SHARED_TOKENS
            ),
        )
        self._prefixes = PrefixStore(config, plan.prefix_bytes, parts.prefix_disk)
        self._requests = RequestLoop(
            config, parts.model, parts.store, self._states, scheduler, self._prefixes, speculation
        )
        self._own_job = -1  # of `generate`: below zero, so that it meets no submitted one

    @classmethod
    def load(cls, path: Path, options: EngineOptions, progress: Progress = unheard, watch: Watch = UNTIMED) -> Self:
        """An engine for the packed model at `path`. The contract: edge.engine_parts.open_parts."""
        parts = open_parts(path, options, progress, watch)
        try:
            return cls(parts, options)
        except BaseException:
            parts.close()
            raise

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
        self, ids: Ids[int], chunk_tokens: int | None = None, prompt_tokens: int | None = None, first: int = 0
    ) -> Iterator[NDArray[np.float32]]:
        """The logits of all positions from `first` on, in order, f32[n, vocab] with a bounded n.

        The first `prompt_tokens` ids (default: all) are computed in chunks of at most `chunk_tokens` (default and
        limit: the plan's), the others one by one. The values depend on neither. Raises RequestError, StorageError.
        """
        ids = self._checked(ids)
        num_prompt = len(ids) if prompt_tokens is None else prompt_tokens
        _check_range("prompt_tokens", num_prompt, 0, len(ids))
        _check_range("first", first, 0, len(ids) - 1)
        chunk = self.plan.chunk_tokens if chunk_tokens is None else chunk_tokens
        _check_range("chunk_tokens", chunk, 1, None)
        return self._logits_blocks(ids, min(chunk, self.plan.chunk_tokens), num_prompt, first)

    def _logits_blocks(self, ids: list[int], chunk: int, num_prompt: int, first: int) -> Iterator[NDArray[np.float32]]:
        self._requests.discard(self._own_job)
        state = self._states.take()
        try:
            block = logits_block_tokens(self.config)
            parts = [ids[i : min(i + chunk, num_prompt)] for i in range(0, num_prompt, chunk)]
            parts += [[token] for token in ids[num_prompt:]]
            for part in parts:
                unwanted = max(0, first - state.length)
                hidden = self._model.forward([Segment(part, state)])
                for start in range(unwanted, len(part), block):
                    yield self._model.logits(hidden[start : start + block])
        finally:
            self._states.give_back(state)

    @property
    def dense(self) -> DenseWeights:
        """All weights but the routed experts', for measurements."""
        return self._dense

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
            speculation=self._speculation.stats if self._speculation else NOTHING_DRAFTED,
            routing=self._leeway.total if self._leeway else NOT_COUNTED,
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


def _check_range(name: str, value: int, least: int, most: int | None) -> None:
    if value < least or (most is not None and value > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise RequestError(f"{name} is {value}: it must be {limit}")
