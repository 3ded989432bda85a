"""edge.engine.Engine as the engine process takes it: its events and counters in the words of the pipe."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Self

from edge import events
from edge.engine import Engine
from edge.engine_options import EngineOptions
from edge.events import GenerationStats
from edge.server import pipe


class EngineAdapter:
    """An edge.server.engine_process.RunningEngine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stats: dict[int, GenerationStats] = {}  # of the requests that have not ended

    @classmethod
    def load(cls, command: pipe.Load, progress: Callable[[int, int], None]) -> Self:
        """Raises what edge.engine.Engine.load raises."""
        options = EngineOptions(
            memory_bytes=command.memory_bytes,
            context_tokens=command.context_tokens,
            threads=command.threads,
            max_sequences=command.num_sequences,
            verify=command.verify,
            prefix_memory_bytes=command.prefix_memory_bytes,
            prefix_disk_bytes=command.prefix_disk_bytes,
            prefix_dir=None if command.prefix_dir is None else Path(command.prefix_dir),
            speculate=command.speculate,
            draft_tokens=command.draft_tokens,
            experts_per_token=command.experts_per_token,
            substitute=command.substitute,
        )
        return cls(Engine.load(Path(command.path), options, progress))

    @property
    def has_work(self) -> bool:
        return self._engine.has_work

    def submit(self, request: pipe.Generate) -> None:
        stats = self._engine.submit(request.job, request.ids, request.sampling, request.tenant)
        self._stats[request.job] = stats

    def cancel(self, job: int) -> None:
        self._engine.cancel(job)

    def step(self, pulse: Callable[[], None]) -> list[pipe.Event]:
        return [self._told(event) for event in self._engine.step(pulse)]

    def ready(self) -> pipe.Ready:
        engine = self._engine
        return pipe.Ready(
            model=engine.pack.name,
            context_tokens=engine.context_tokens,
            vocab_size=engine.config.vocab_size,
            num_sequences=engine.plan.num_sequences,
            counters=self.counters(),
        )

    def counters(self) -> pipe.Counters:
        stats = self._engine.stats()
        return pipe.Counters(
            expert_hits=stats.expert_hits,
            expert_lookups=stats.expert_lookups,
            expert_read_bytes=stats.expert_read_bytes,
            disk_seconds=stats.disk_seconds,
            prefix_hits=stats.prefixes.hits,
            prefix_misses=stats.prefixes.misses,
            prefix_tokens=stats.prefixes.reused_tokens,
            drafted_tokens=stats.speculation.drafted_tokens,
            accepted_tokens=stats.speculation.accepted_tokens,
            **asdict(stats.routing),
        )

    def _told(self, event: events.Event) -> pipe.Event:
        match event:
            case events.Started(job=job):
                return pipe.Started(job, self._stats[job].prompt_tokens)
            case events.Token(job=job, token=token):
                return pipe.Token(job, token, _worked(self._stats[job]))
            case events.Finished(job=job, reason=reason):
                return pipe.Finished(job, reason, _worked(self._stats.pop(job)))
            case events.Failed(job=job, error=error):
                del self._stats[job]
                return pipe.Failed(job, type(error).__name__, str(error))


def _worked(stats: GenerationStats) -> pipe.Worked:
    return pipe.Worked(
        expert_hits=stats.expert_hits,
        expert_lookups=stats.expert_lookups,
        expert_read_bytes=stats.expert_read_bytes,
        reused_tokens=stats.reused_tokens,
        drafted_tokens=stats.drafted_tokens,
        accepted_tokens=stats.accepted_tokens,
        routings=stats.routing.routings,
        substituted=stats.routing.substituted,
        weight_kept=stats.routing.weight_kept,
    )
