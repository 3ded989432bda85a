"""All metrics of the gateway, on a registry that is passed in.

Label values come from closed sets: backend, rule and policy names from configuration, reasons and causes from code.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

# The label of a model that no configured backend has named.
OTHER_MODEL = "other"

# Names a backend may bring in; a server that changes its model's name all the time must not fill our memory.
MAX_MODELS = 64

# Buckets of the OpenTelemetry GenAI conventions, extended upward: an edge may need a minute for the first token.
TTFT_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 60)
PER_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
DURATION_BUCKETS = tuple(0.01 * 2**k for k in range(14))
TOKEN_BUCKETS = tuple(4.0**k for k in range(11))


class Metrics:
    """Counts what the gateway does. Only the event loop's thread calls it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self._models = {OTHER_MODEL}
        self._declare_requests(registry)
        self._declare_routing(registry)

    def _declare_requests(self, registry: CollectorRegistry) -> None:
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a request's arrival to its end; error_type is empty when it was answered.",
            ["lane", "model", "error_type"],
            registry=registry,
            buckets=DURATION_BUCKETS,
        )
        self._ttft = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a request's arrival to the first text sent to the caller.",
            ["lane", "model"],
            registry=registry,
            buckets=TTFT_BUCKETS,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Mean time between the tokens of one answer, the first excluded.",
            ["lane", "model"],
            registry=registry,
            buckets=PER_TOKEN_BUCKETS,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of one request as the answering model counted them: prompt (input), answer (output).",
            ["lane", "model", "gen_ai_token_type"],
            registry=registry,
            buckets=TOKEN_BUCKETS,
        )
        self._in_flight = Gauge("flashgate_requests_in_flight", "Requests being answered.", registry=registry)

    def _declare_routing(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(
            "flashgate_route_decisions",
            "Requests by the lane that answered, the rule that chose it and the deciding reason.",
            ["lane", "rule", "reason"],
            registry=registry,
        )
        self._egress_denied = Counter(
            "flashgate_egress_denied",
            "Sends, or candidates for one, that the privacy floor forbade.",
            ["floor", "cause"],
            registry=registry,
        )
        self._predicted_ttft = Histogram(
            "flashgate_predicted_ttft_seconds",
            "Time to first token as predicted when the route was chosen.",
            ["lane"],
            registry=registry,
            buckets=TTFT_BUCKETS,
        )
        self._refusals = Counter(
            "flashgate_refusals", "Requests that were not answered, by reason.", ["reason"], registry=registry
        )
        self._fallbacks = Counter(
            "flashgate_fallbacks",
            "Attempts that failed before the first token.",
            ["from", "cause"],
            registry=registry,
        )
        self._available = Gauge(
            "flashgate_backend_available",
            "1 while a backend can take requests.",
            ["backend", "lane"],
            registry=registry,
        )
        self._reloads = Counter(
            "flashgate_policy_reloads", "Changes of the policy file, by outcome.", ["outcome"], registry=registry
        )
        self._policy_info = Gauge("flashgate_policy_info", "1 for the policy in force.", ["hash"], registry=registry)
        for outcome in ("loaded", "refused"):
            self._reloads.labels(outcome=outcome)

    def request_started(self) -> None:
        self._in_flight.inc()

    def request_ended(self) -> None:
        self._in_flight.dec()

    def decided(self, lane: str, rule: str, reason: str, predicted_ttft_s: float | None) -> None:
        """One request got its answering backend."""
        self._decisions.labels(lane=lane, rule=rule, reason=reason).inc()
        if predicted_ttft_s is not None:
            self._predicted_ttft.labels(lane=lane).observe(predicted_ttft_s)

    def egress_denied(self, floor: str, cause: str) -> None:
        self._egress_denied.labels(floor=floor, cause=cause).inc()

    def refused(self, reason: str) -> None:
        self._refusals.labels(reason=reason).inc()

    def fell_back(self, backend: str, cause: str) -> None:
        self._fallbacks.labels(**{"from": backend, "cause": cause}).inc()

    def first_text(self, lane: str, model: str, ttft_s: float) -> None:
        self._ttft.labels(lane=lane, model=self._model(model)).observe(ttft_s)

    def finished(self, lane: str, model: str, error_type: str, duration_s: float) -> None:
        """`error_type` is "" for an answered request, else the failure's cause."""
        self._duration.labels(lane=lane, model=self._model(model), error_type=error_type).observe(duration_s)

    def usage(self, lane: str, model: str, prompt_tokens: int, completion_tokens: int, decode_s: float) -> None:
        """`decode_s`: from the first text to the end."""
        name = self._model(model)
        self._tokens.labels(lane=lane, model=name, gen_ai_token_type="input").observe(prompt_tokens)  # noqa: S106 - a kind of token, no secret
        self._tokens.labels(lane=lane, model=name, gen_ai_token_type="output").observe(completion_tokens)  # noqa: S106 - a kind of token, no secret
        if completion_tokens > 1:
            self._per_token.labels(lane=lane, model=name).observe(decode_s / (completion_tokens - 1))

    def backend_state(self, backend: str, lane: str, model: str, available: bool) -> None:
        """A configured backend's state; its model becomes a known label value."""
        if model and len(self._models) < MAX_MODELS:
            self._models.add(model)
        self._available.labels(backend=backend, lane=lane).set(available)

    def policy_reloaded(self, outcome: str) -> None:
        """`outcome` is "loaded" or "refused"."""
        self._reloads.labels(outcome=outcome).inc()

    def policy_in_force(self, policy_hash: str) -> None:
        self._policy_info.clear()
        self._policy_info.labels(hash=policy_hash).set(1)

    def _model(self, model: str) -> str:
        return model if model in self._models else OTHER_MODEL
