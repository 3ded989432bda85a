"""Runs a workload on an engine and counts what each phase took."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from edge.bench.workload import WAITING_TOKENS, RandomIds, Workload
from edge.deviation import NOT_COUNTED, RoutingCounts
from edge.engine import Engine
from edge.engine_stats import EngineStats
from edge.events import Failed, Finished, Started, Token
from edge.profiling import OTHER, Stopwatch

WARMUP_ROUND, PROMPT_ROUND, DECODE_ROUND = range(3)

Progress = Callable[[str], None]  # told the phase after each pass


@dataclass(frozen=True, slots=True)
class Phase:
    """Some passes of the model, counted."""

    pass_seconds: tuple[float, ...]
    tokens: int  # of all sequences together
    lookups: int
    hits: int
    read_bytes: int
    dense_read_bytes: int  # of layers that do not fit, and rows of an embedding on disk
    prefetch_bytes: int  # of read_bytes, those read on a guess
    prefetch_wasted_bytes: int  # and of these, not asked for by the layer that they were meant for
    disk_seconds: float
    seconds_by_kind: dict[str, float]
    routing: RoutingCounts = NOT_COUNTED  # all zero unless the engine was asked to deviate

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self.pass_seconds)

    @property
    def tokens_per_second(self) -> float:
        """Of all sequences together."""
        return self.tokens / self.seconds

    @property
    def misses(self) -> int:
        """Look-ups that the disk had to answer."""
        return self.lookups - self.hits

    @property
    def hit_rate(self) -> float:
        """Share of look-ups answered from RAM; 1 of none, as nothing was missing."""
        return self.hits / self.lookups if self.lookups else 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One run. The prompt is that of the first sequence, alone; decoding is that of all sequences together."""

    prefill: Phase
    decode: Phase
    ttft_seconds: float
    prefetch_recall: float  # share of the experts needed that had been guessed, warm-up and all


def measure(
    engine: Engine,
    watch: Stopwatch,
    workload: Workload,
    progress: Progress,
    between: Callable[[], None] = lambda: None,
) -> Measured:
    """Warm up, read one prompt, read the others, then decode all of them side by side.

    `between` is called after each pass of decoding; its time is not counted.
    The engine's context must hold `engine_context(workload)` tokens. Raises the EdgeError that ends a request.
    """
    run = _Run(engine, workload, progress)
    if workload.warmup:
        run.begin(WARMUP_ROUND, workload.sequences)
        run.until_all_have("warm-up", workload.warmup)
        run.end()
    counters = _Counters(engine, watch)
    run.begin(PROMPT_ROUND, 1)
    passes = run.until_all_have("prompt", 1)
    prefill = counters.phase(passes, workload.prompt_tokens)
    if workload.sequences > 1:
        # All at once: a sequence that is there already would decode while the others' prompts are read.
        run.end()
        run.begin(DECODE_ROUND, workload.sequences)
        run.until_all_have("prompts", 1)
    counters = _Counters(engine, watch)
    passes, apart = [], 0.0
    for _ in range(workload.tokens):
        passes.append(run.step("decode"))
        began = perf_counter()
        between()
        apart += perf_counter() - began
    decode = counters.phase(passes, workload.tokens * workload.sequences, apart)
    run.end()
    # The first token is drawn in the pass that ends the prompt.
    return Measured(prefill, decode, prefill.seconds, engine.stats().prefetch_recall)


def engine_context(workload: Workload) -> int:
    """The context with which all sequences fit the engine's pool of KV memory: see `edge.budget.pool_tokens`."""
    count = workload.sequences
    return -(-2 * count * workload.sequence_tokens // (count + 1))


class _Run:
    def __init__(self, engine: Engine, workload: Workload, progress: Progress) -> None:
        self._engine = engine
        self._workload = workload
        self._progress = progress
        self._drawn: dict[int, int] = {}  # tokens by job
        self._next_job = 0

    def begin(self, num_round: int, sequences: int) -> None:
        """Submit the first so many prompts of a round."""
        config, workload = self._engine.config, self._workload
        for ids in workload.prompts(config.vocab_size, num_round)[:sequences]:
            job, self._next_job = self._next_job, self._next_job + 1
            tokens = workload.sequence_tokens - workload.prompt_tokens
            self._engine.submit(job, ids, RandomIds(tokens, config.vocab_size, frozenset(config.eos_token_ids), job))
            self._drawn[job] = 0

    def until_all_have(self, phase: str, count: int) -> list[float]:
        """Step until each sequence has `count` tokens; the seconds of each pass."""
        passes = []
        while min(self._drawn.values()) < count:
            passes.append(self.step(phase))
        return passes

    def step(self, phase: str) -> float:
        """One pass; its seconds."""
        began = perf_counter()
        events = self._engine.step()
        if events and all(isinstance(event, Started) for event in events):  # told before their pass
            events = self._engine.step()
        seconds = perf_counter() - began
        for event in events:
            match event:
                case Token(job=job):
                    self._drawn[job] += 1
                case Failed(error=error):
                    raise error
                case Finished():
                    raise RuntimeError(f"a sequence ended after {WAITING_TOKENS} tokens more than were to be measured")
        self._progress(phase)
        return seconds

    def end(self) -> None:
        """Let all sequences go."""
        for job in self._drawn:
            self._engine.cancel(job)
        while self._engine.has_work:
            self._engine.step()
        self._drawn.clear()


class _Counters:
    """The engine's counters at a moment."""

    def __init__(self, engine: Engine, watch: Stopwatch) -> None:
        self._engine = engine
        self._watch = watch
        self._before: EngineStats = engine.stats()
        watch.take()

    def phase(self, passes: list[float], tokens: int, apart: float = 0.0) -> Phase:
        """`apart`: seconds since this moment that were spent on something else, outside of all spans."""
        after, seconds = self._engine.stats(), self._watch.take()
        seconds[OTHER] -= apart
        return Phase(
            pass_seconds=tuple(passes),
            tokens=tokens,
            lookups=after.expert_lookups - self._before.expert_lookups,
            hits=after.expert_hits - self._before.expert_hits,
            read_bytes=after.expert_read_bytes - self._before.expert_read_bytes,
            dense_read_bytes=after.dense_read_bytes - self._before.dense_read_bytes,
            prefetch_bytes=after.prefetch_bytes - self._before.prefetch_bytes,
            prefetch_wasted_bytes=after.prefetch_wasted_bytes - self._before.prefetch_wasted_bytes,
            disk_seconds=after.disk_seconds - self._before.disk_seconds,
            seconds_by_kind=seconds,
            routing=after.routing - self._before.routing,
        )
