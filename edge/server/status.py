"""One look at the node: what GetStatus answers and what the gauges show."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge.server import sensors
from edge.server.admission import Admission
from edge.server.rates import Rates
from edge.server.supervisor import EngineState, Supervisor


class NodeState(StrEnum):
    """The closed set of the metric's label: the engine's states, and the node's own end."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """Rates are 0 before the first measurement; sensors None where the machine has none."""

    model: str
    state: NodeState
    error: str
    context_tokens: int
    queue_depth: int
    queue_limit: int
    running: int
    running_limit: int
    steps_until_place: int
    pending_prompt_tokens: int
    pending_completion_tokens: int
    prefill_tokens_per_second: float
    prompt_base_s: float
    decode_tokens_per_second: float
    total_decode_tokens_per_second: float
    batch_size: float
    prompt_bytes_per_token: float
    prompt_reuse_rate: float
    expert_cache_hit_rate: float
    disk_read_bytes_per_second: float
    memory_bytes: int
    memory_budget_bytes: int
    temperature_celsius: float | None
    power: sensors.Power
    uptime_s: float
    engine_restarts: int


class StatusSource:
    """Makes a NodeStatus of the parts. Cheap; may be called from another thread than the event loop's."""

    def __init__(
        self,
        engine: Supervisor,
        admission: Admission,
        rates: Rates,
        *,
        model: str,
        context_tokens: int,
        memory_budget_bytes: int,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._admission, self._rates = engine, admission, rates
        self._model, self._context_tokens = model, context_tokens
        self._memory_budget_bytes = memory_budget_bytes
        self._root, self._clock = root, clock
        self._began = clock()
        self.is_draining = False

    @property
    def state(self) -> NodeState:
        if self.is_draining and self._engine.state is not EngineState.FAILED:
            return NodeState.DRAINING
        return NodeState(self._engine.state.value)

    def __call__(self) -> NodeStatus:
        admission, rates = self._admission, self._rates
        return NodeStatus(
            model=self._model,
            state=self.state,
            error=self._engine.error,
            context_tokens=self._context_tokens,
            queue_depth=admission.queue_depth,
            queue_limit=admission.limit,
            running=admission.num_running,
            running_limit=admission.num_sequences,
            steps_until_place=admission.steps_until_place,
            pending_prompt_tokens=admission.pending_prompt_tokens,
            pending_completion_tokens=admission.pending_completion_tokens,
            prefill_tokens_per_second=rates.prefill.tokens_per_second,
            prompt_base_s=rates.prefill.base_seconds,
            decode_tokens_per_second=rates.decode.value,
            total_decode_tokens_per_second=rates.total_decode.value,
            batch_size=rates.batch.value,
            prompt_bytes_per_token=rates.prompt_bytes_per_token.value,
            prompt_reuse_rate=rates.reuse.value,
            expert_cache_hit_rate=rates.hits.value,
            disk_read_bytes_per_second=rates.disk.value,
            memory_bytes=self._memory_bytes(),
            memory_budget_bytes=self._memory_budget_bytes,
            temperature_celsius=sensors.temperature_celsius(self._root),
            power=sensors.power(self._root),
            uptime_s=self._clock() - self._began,
            engine_restarts=self._engine.restarts,
        )

    def _memory_bytes(self) -> int:
        pid = self._engine.pid
        return sensors.resident_bytes() + (0 if pid is None else sensors.resident_bytes(process=str(pid)))
