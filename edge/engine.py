"""One model loaded within a memory budget, serving one request at a time.

After any error the engine serves the next request: each begins with a fresh state, and a failed read leaves no slot
behind.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import structlog
from numpy.typing import NDArray

from edge import kernels
from edge.budget import MemoryPlan, logits_block_tokens, peak_resident_bytes, plan_memory, resident_bytes
from edge.checkpoint.matrix import Matrix
from edge.checkpoint.pack import Pack
from edge.errors import CancelledError, PackError, RequestError
from edge.experts.store import ExpertStore
from edge.locking import lock_in_ram
from edge.model import Model
from edge.sampler import Sampler, SamplingParams
from edge.state import SequenceState

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How a model is to run."""

    memory_bytes: int
    context_tokens: int = 4096
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    chunk_tokens: int = 512
    expert_slots: int | None = None  # at most so many experts in RAM, below what the budget allows; for measurements

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name} is {value}: it must be at least 1")


@dataclass(slots=True)
class GenerationStats:
    """One request so far, or the whole of it once its iterator ended."""

    prompt_tokens: int
    completion_tokens: int = 0
    finish_reason: str = ""  # "stop" or "length"; empty while running or after an error
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0
    ttft_seconds: float = 0.0
    expert_hits: int = 0
    expert_lookups: int = 0
    expert_read_bytes: int = 0
    disk_seconds: float = 0.0


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


class Engine:
    """Made by `load`. Not thread-safe: one iterator of `generate`, or one call of `logits`, at a time."""

    def __init__(self, pack: Pack, options: EngineOptions, model: Model, store: ExpertStore, plan: MemoryPlan) -> None:
        self.pack = pack
        self.config = pack.config
        self.context_tokens = options.context_tokens
        self.plan = plan
        self.last = GenerationStats(0)
        self._options = options
        self._model = model
        self._store = store
        self._state = SequenceState(pack.config, options.context_tokens)

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
        )
        tensors = pack.load_dense(_counted(progress, pack.dense_nbytes))
        store = ExpertStore(pack, plan.num_slots, kernels.ExpertReader(pack.expert_paths))
        dense = [tensor.data if isinstance(tensor, Matrix) else tensor for tensor in tensors.values()]
        if not lock_in_ram([*dense, store.memory]):
            log.warning("weights_not_locked_in_ram", bytes=plan.dense_bytes + plan.expert_bytes)
        return cls(pack, options, Model(pack.config, tensors, store), store, plan)

    def generate(
        self, ids: Sequence[int], sampling: SamplingParams, should_stop: Callable[[], bool] = never
    ) -> Iterator[int]:
        """The completion's token ids, one by one; an end-of-sequence token ends it and is not among them.

        `should_stop` is asked before every token and before every layer of the prompt: true raises CancelledError.
        Raises RequestError at once; while running StorageError, or PackError if the weights give logits that are no
        numbers. `last` holds the counters, right at any moment.
        """
        return self._generate(self._checked(ids), sampling, should_stop)

    def _generate(self, ids: Sequence[int], sampling: SamplingParams, should_stop: Callable[[], bool]) -> Iterator[int]:
        run = _Run(self._store, len(ids))
        self.last = run.stats
        sampler = Sampler(sampling)
        self._state.reset()
        hidden = self._prefill(ids, _raise_if(should_stop))
        run.prompt_done()
        while True:
            token = sampler.draw(self._last_logits(hidden))
            run.token_drawn()
            if token in self.config.eos_token_ids:
                run.stats.finish_reason = "stop"
                return
            run.stats.completion_tokens += 1
            if run.stats.completion_tokens == sampling.max_tokens or self._state.length == self.context_tokens:
                run.stats.finish_reason = "length"
            yield token
            if run.stats.finish_reason:
                return
            run.resume()
            _raise_if(should_stop)()
            hidden = self._model.forward([token], self._state)

    def logits(
        self, ids: Sequence[int], chunk_tokens: int | None = None, prompt_tokens: int | None = None
    ) -> NDArray[np.float32]:
        """f32[T, vocab] of all positions; see `logits_blocks`."""
        out = np.empty((len(ids), self.config.vocab_size), np.float32)
        start = 0
        for block in self.logits_blocks(ids, chunk_tokens, prompt_tokens):
            out[start : start + len(block)] = block
            start += len(block)
        return out

    def logits_blocks(
        self, ids: Sequence[int], chunk_tokens: int | None = None, prompt_tokens: int | None = None
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

    def _logits_blocks(self, ids: Sequence[int], chunk: int, num_prompt: int) -> Iterator[NDArray[np.float32]]:
        self._state.reset()
        block = logits_block_tokens(self.config)
        parts = [ids[i : min(i + chunk, num_prompt)] for i in range(0, num_prompt, chunk)]
        parts += [[token] for token in ids[num_prompt:]]
        for part in parts:
            hidden = self._model.forward(part, self._state)
            for start in range(0, len(part), block):
                yield self._model.logits(hidden[start : start + block])

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

    def _prefill(self, ids: Sequence[int], before_layer: Callable[[], None]) -> NDArray[np.float32]:
        """The hidden states of the prompt's last chunk."""
        chunk = self.plan.chunk_tokens
        for start in range(0, len(ids), chunk):
            hidden = self._model.forward(ids[start : start + chunk], self._state, before_layer)
        return hidden

    def _last_logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._model.logits(hidden[-1:])[0]
        if not math.isfinite(logits.max()):  # NaN carries through to the maximum
            raise PackError(f"{self.pack.path}: the logits are not finite: no text can be drawn from these weights")
        return logits

    def _checked(self, ids: Sequence[int]) -> list[int]:
        ids = list(ids)
        if not ids:
            raise RequestError("the prompt is empty: it needs at least one token")
        if len(ids) > self.context_tokens:
            raise RequestError(f"the prompt has {len(ids)} tokens: the context holds {self.context_tokens}")
        for token in (min(ids), max(ids)):
            _check_range("token id", token, 0, self.config.vocab_size - 1)
        return ids


class _Run:
    """Keeps the counters of one request right."""

    def __init__(self, store: ExpertStore, prompt_tokens: int) -> None:
        self.stats = GenerationStats(prompt_tokens)
        self._store = store
        self._before = store.stats()
        self._began = self._resumed = time.perf_counter()

    def prompt_done(self) -> None:
        """The prompt's last hidden state is there."""
        self.stats.prefill_seconds = time.perf_counter() - self._began

    def resume(self) -> None:
        """The consumer asks for the next token: the time it took itself is not decoding."""
        self._resumed = time.perf_counter()

    def token_drawn(self) -> None:
        """One more token was computed, the end-of-sequence token included."""
        now, stats, store = time.perf_counter(), self.stats, self._store.stats()
        if stats.ttft_seconds:
            stats.decode_seconds += now - self._resumed
        else:
            stats.ttft_seconds = now - self._began
        stats.expert_hits = store.hits - self._before.hits
        stats.expert_lookups = store.lookups - self._before.lookups
        stats.expert_read_bytes = store.read_bytes - self._before.read_bytes
        stats.disk_seconds = store.disk_seconds - self._before.disk_seconds


def _counted(progress: Progress, total: int) -> Callable[[int], None]:
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return advance


def _raise_if(should_stop: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if should_stop():
            raise CancelledError("the request was cancelled")

    return check


def _check_range(name: str, value: int, least: int, most: int | None) -> None:
    if value < least or (most is not None and value > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise RequestError(f"{name} is {value}: it must be {limit}")
