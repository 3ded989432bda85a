"""Everything the edge server tells Prometheus, on a registry that is passed in.

Counters follow what is observed, so they never fall when the engine is restarted; gauges are read when scraped.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.server.observed import EngineRestarted, EngineStepped, EngineWorked, Event, Outcome, RequestEnded
from edge.server.pipe import Token
from edge.server.status import NodeState, NodeStatus

LANE = "edge"
# From a prompt of a few tokens on a small model to a long one whose experts all come from a slow disk.
DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280)
TTFT_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
BATCH_BUCKETS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 32)
TOKEN_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)

# One gauge of the node's status each; what is None is left out.
_GAUGES: tuple[tuple[str, str, Callable[[NodeStatus], float | None]], ...] = (
    ("decode_tokens_per_second", "Recent rate of one request's answer.", lambda s: s.decode_tokens_per_second),
    (
        "total_decode_tokens_per_second",
        "Recent rate of all answers together.",
        lambda s: s.total_decode_tokens_per_second,
    ),
    ("prefill_tokens_per_second", "Recent rate of prompt tokens.", lambda s: s.prefill_tokens_per_second),
    ("expert_cache_hit_ratio", "Recent share of expert look-ups answered from RAM.", lambda s: s.expert_cache_hit_rate),
    ("disk_read_bytes_per_second", "Recent rate of the disk while it reads.", lambda s: s.disk_read_bytes_per_second),
    ("queue_depth", "Requests waiting.", lambda s: s.queue_depth),
    ("queue_limit", "The most requests that may wait.", lambda s: s.queue_limit),
    ("requests_running", "Requests that the engine works on.", lambda s: s.running),
    ("requests_running_limit", "The most requests that it works on at once.", lambda s: s.running_limit),
    ("pending_prompt_tokens", "Prompt tokens of all accepted requests still to do.", lambda s: s.pending_prompt_tokens),
    ("pending_completion_tokens", "Upper bound of tokens still to generate.", lambda s: s.pending_completion_tokens),
    ("memory_bytes", "Memory that the server and its engine hold.", lambda s: s.memory_bytes),
    ("memory_budget_bytes", "The --memory that was stated.", lambda s: s.memory_budget_bytes),
    ("context_tokens", "Tokens that prompt and answer may have together.", lambda s: s.context_tokens),
    ("temperature_celsius", "The hottest thermal zone.", lambda s: s.temperature_celsius),
    ("battery_ratio", "Charge of the battery.", lambda s: s.power.battery_fraction),
    ("uptime_seconds", "Since the server started.", lambda s: s.uptime_s),
    ("weight_precision", "Bits per weight that the model was packed with; 16: as released.", lambda s: s.weight_bits),
    (
        "experts_per_token",
        "Experts that a token goes to, where that may not be what the model would do.",
        lambda s: s.deviation.experts if s.deviation else None,
    ),
    (
        "own_experts_per_token",
        "Those that the model would send it to.",
        lambda s: s.deviation.own_experts if s.deviation else None,
    ),
    (
        "substitute_share",
        "Below this share of a token a missing expert gives way to one in RAM.",
        lambda s: s.deviation.substitute if s.deviation else None,
    ),
)


class EdgeMetrics:
    """Pass `observe` to what happens, and add the gauges once there is a status to read."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._registry = registry
        labels = {"lane": LANE, "model": model}
        self._duration = _histogram(
            registry, "gen_ai_server_request_duration_seconds", "From arrival to end.", DURATION_BUCKETS, labels
        )
        self._ttft = _histogram(
            registry, "gen_ai_server_time_to_first_token_seconds", "From arrival to first token.", TTFT_BUCKETS, labels
        )
        self._per_token = _histogram(
            registry,
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time of a request's tokens after the first.",
            TOKEN_BUCKETS,
            labels,
        )
        requests = Counter(
            "gen_ai_server_requests", "Requests by how they ended.", ("lane", "model", "outcome"), registry=registry
        )
        self._requests = {outcome: requests.labels(**labels, outcome=outcome.value) for outcome in Outcome}
        tokens = Counter("flashgate_edge_tokens", "Tokens of answered requests.", ("type",), registry=registry)
        self._prompt_tokens, self._completion_tokens = tokens.labels("prompt"), tokens.labels("completion")
        self._hits = _counter(registry, "expert_cache_hits", "Expert look-ups answered from RAM.")
        self._misses = _counter(registry, "expert_cache_misses", "Expert look-ups that went to the disk.")
        self._read_bytes = _counter(registry, "expert_read_bytes", "Bytes of experts read from disk.")
        self._read_seconds = _counter(registry, "disk_read_seconds", "Time with at least one read in flight.")
        self._prefix_hits = _counter(registry, "prefix_hits", "Prompts that went on where an earlier one had been.")
        self._prefix_misses = _counter(registry, "prefix_misses", "Prompts computed from their beginning.")
        self._prefix_tokens = _counter(registry, "prefix_tokens", "Prompt tokens that were known from earlier ones.")
        self._drafted = _counter(registry, "drafted_tokens", "Tokens guessed and computed with those before them.")
        self._accepted = _counter(registry, "accepted_tokens", "Of the drafted tokens those that were right.")
        self._routings = _counter(
            registry, "expert_routings", "Choices of experts, one per token and layer, that might have deviated."
        )
        self._substitutions = _counter(
            registry, "expert_substitutions", "Experts that stood in for one that was not in RAM."
        )
        self._weight_kept = _counter(
            registry, "router_weight_kept", "By routing, the experts' weight as a share of that of the model's choice."
        )
        self._batch_size = Histogram(
            "flashgate_edge_batch_size",
            "Answers that one step of the engine moved on.",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self._restarts = _counter(registry, "engine_restarts", "Engines started because the one before died.")

    def add_gauges(self, status: Callable[[], NodeStatus]) -> None:
        self._registry.register(_Gauges(status))

    def observe(self, event: Event) -> None:
        """An edge.server.observed.Observer."""
        match event:
            case RequestEnded():
                self._request_ended(event)
            case EngineWorked(added=added):
                self._hits.inc(added.expert_hits)
                self._misses.inc(added.expert_lookups - added.expert_hits)
                self._read_bytes.inc(added.expert_read_bytes)
                self._read_seconds.inc(added.disk_seconds)
                self._prefix_hits.inc(added.prefix_hits)
                self._prefix_misses.inc(added.prefix_misses)
                self._prefix_tokens.inc(added.prefix_tokens)
                self._drafted.inc(added.drafted_tokens)
                self._accepted.inc(added.accepted_tokens)
                self._routings.inc(added.routings)
                self._substitutions.inc(added.substituted)
                self._weight_kept.inc(added.weight_kept)
            case EngineStepped(step=step):
                if size := len({told.job for told in step.events if isinstance(told, Token)}):
                    self._batch_size.observe(size)
            case EngineRestarted():
                self._restarts.inc()

    def _request_ended(self, event: RequestEnded) -> None:
        self._requests[event.outcome].inc()
        self._duration.observe(event.total_s)
        if event.ttft_s is None or event.last_token_s is None:
            return
        self._ttft.observe(event.ttft_s)
        self._prompt_tokens.inc(event.prompt_tokens)
        self._completion_tokens.inc(event.completion_tokens)
        if event.completion_tokens > 1:
            self._per_token.observe((event.last_token_s - event.ttft_s) / (event.completion_tokens - 1))


class _Gauges(Collector):
    def __init__(self, status: Callable[[], NodeStatus]) -> None:
        self._status = status

    def describe(self) -> list[Metric]:
        """Nothing: the registry would otherwise ask for the status while the node is being built."""
        return []

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        for name, text, read in _GAUGES:
            if (value := read(status)) is not None:
                yield GaugeMetricFamily(f"flashgate_edge_{name}", text, value=value)
        if status.power.on_battery is not None:
            yield GaugeMetricFamily(
                "flashgate_edge_on_battery", "1 while the battery discharges.", value=status.power.on_battery
            )
        states = GaugeMetricFamily("flashgate_edge_engine_state", "1 for the state it is in.", labels=["state"])
        for state in NodeState:
            states.add_metric([state.value], state is status.state)
        yield states


def _counter(registry: CollectorRegistry, name: str, text: str) -> Counter:
    return Counter(f"flashgate_edge_{name}", text, registry=registry)


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...], labels: dict[str, str]
) -> Histogram:
    return Histogram(name, text, tuple(labels), buckets=buckets, registry=registry).labels(**labels)
