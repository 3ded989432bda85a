"""One look at the node: what GetStatus answers and what the gauges show."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from edge.deviation import Deviation, RoutingCounts
from edge.server import sensors
from edge.server.admission import Admission
from edge.server.agreement import Agreement
from edge.server.rates import Rates
from edge.server.supervisor import EngineState

SENSORS_INTERVAL_S = 1.0


class NodeState(StrEnum):
    """The closed set of the metric's label: the engine's states, and the node's own end."""

    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"


class StatusEngine(Protocol):
    """What a status needs of the engine; edge.server.supervisor.Supervisor, or a fake in tests."""

    state: EngineState
    error: str
    restarts: int

    @property
    def pid(self) -> int | None: ...


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
    weight_bits: float
    deviation: Deviation | None  # None: answers are the packed model's own
    routing: RoutingCounts


class StatusSource:
    """Makes a NodeStatus of the parts. Cheap; may be called from another thread than the event loop's.

    The machine is looked at once a second, however many ask: files of /proc and /sys cost more than all the rest.
    """

    def __init__(
        self,
        engine: StatusEngine,
        admission: Admission,
        rates: Rates,
        *,
        model: str,
        weight_bits: float,
        agreement: Agreement,
        context_tokens: int,
        memory_budget_bytes: int,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._admission, self._rates = engine, admission, rates
        self._model, self._weight_bits, self._context_tokens = model, weight_bits, context_tokens
        self._agreement = agreement
        self._memory_budget_bytes = memory_budget_bytes
        self._root, self._clock = root, clock
        self._began = clock()
        self._read_at = -math.inf
        self._readings = sensors.Readings(0, None, sensors.Power())
        self.is_draining = False

    @property
    def state(self) -> NodeState:
        if self.is_draining and self._engine.state is not EngineState.FAILED:
            return NodeState.DRAINING
        return NodeState(self._engine.state.value)

    def __call__(self) -> NodeStatus:
        admission, rates, now = self._admission, self._rates, self._clock()
        readings = self._read(now)
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
            memory_bytes=readings.memory_bytes,
            memory_budget_bytes=self._memory_budget_bytes,
            temperature_celsius=readings.temperature_celsius,
            power=readings.power,
            uptime_s=now - self._began,
            engine_restarts=self._engine.restarts,
            weight_bits=self._weight_bits,
            deviation=self._agreement.deviation,
            routing=self._agreement.counts,
        )

    def _read(self, now: float) -> sensors.Readings:
        if now - self._read_at >= SENSORS_INTERVAL_S:
            self._readings, self._read_at = sensors.readings(self._engine.pid, self._root), now
        return self._readings
