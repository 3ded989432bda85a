"""All metrics of the stub, with the lane and names that the gateway's and the edge's dashboards use."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LANE = "cloud"

# Buckets of the OpenTelemetry GenAI conventions, extended upward as the gateway's and the edge's are, so that one
# histogram_quantile works across all three.
_TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 60)
_PER_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_DURATION_BUCKETS = tuple(0.01 * 2**k for k in range(14))
_TOKEN_BUCKETS = tuple(4.0**k for k in range(11))


class Metrics:
    """Counts requests of one model name; every label value comes from a closed set."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self.registry = registry
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        labels = {"lane": LANE, "model": model}

        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a request's arrival to its end; error_type is empty when it was answered.",
            ["lane", "model", "error_type"],
            registry=registry,
            buckets=_DURATION_BUCKETS,
        )
        self._ttft = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a request's arrival to its first token.",
            ["lane", "model"],
            registry=registry,
            buckets=_TTFT_BUCKETS,
        ).labels(**labels)
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time between the tokens of one answer, the first excluded.",
            ["lane", "model"],
            registry=registry,
            buckets=_PER_TOKEN_BUCKETS,
        ).labels(**labels)
        tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of one request: prompt (input), answer (output).",
            ["lane", "model", "gen_ai_token_type"],
            registry=registry,
            buckets=_TOKEN_BUCKETS,
        )
        self._input_tokens = tokens.labels(*labels.values(), "input")
        self._output_tokens = tokens.labels(*labels.values(), "output")
        self._in_flight = Gauge(
            "flashgate_cloud_stub_requests_in_flight", "Requests being answered.", registry=registry
        )
        self._recorded = Counter("flashgate_cloud_stub_recorded", "Requests appended to the record.", registry=registry)
        self._labels = labels

    def started(self, prompt_tokens: int) -> None:
        self._in_flight.inc()
        self._input_tokens.observe(prompt_tokens)

    def first_token(self, ttft_s: float) -> None:
        self._ttft.observe(ttft_s)

    def finished(self, duration_s: float, ttft_s: float | None, num_tokens: int, error_type: str) -> None:
        """`error_type` is one of "", "status", "cut", "cancelled", "stopping"."""
        self._in_flight.dec()
        self._output_tokens.observe(num_tokens)
        self._duration.labels(**self._labels, error_type=error_type).observe(duration_s)
        if ttft_s is not None and num_tokens > 1:
            self._per_token.observe((duration_s - ttft_s) / (num_tokens - 1))

    def recorded(self) -> None:
        self._recorded.inc()
