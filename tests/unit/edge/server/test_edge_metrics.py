import socket
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edge.deviation import Deviation
from edge.errors import EdgeError
from edge.metrics import EdgeMetrics
from edge.server import sensors
from edge.server.metrics_http import MetricsServer
from edge.server.observed import EngineRestarted, EngineStepped, EngineWorked, Outcome, RequestEnded
from edge.server.pipe import Counters, Event, Finished, Started, Step, Token
from edge.server.status import NodeState
from tests.unit.edge.server.conftest import STATUS

LABELS = {"lane": "edge", "model": "m"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> EdgeMetrics:
    return EdgeMetrics(registry, "m")


def test_the_names_that_dashboards_know_are_there_from_the_start(
    registry: CollectorRegistry, metrics: EdgeMetrics
) -> None:
    metrics.add_gauges(lambda: STATUS)
    names = {family.name for family in text_string_to_metric_families(generate_latest(registry).decode())}
    edge = {
        "decode_tokens_per_second", "prefill_tokens_per_second", "expert_cache_hits", "expert_cache_misses",
        "expert_read_bytes", "disk_read_seconds", "queue_depth", "queue_limit", "requests_running", "memory_bytes",
        "batch_size", "prefix_hits", "prefix_misses", "prefix_tokens", "requests_running_limit",
        "total_decode_tokens_per_second",
        "memory_budget_bytes", "temperature_celsius", "engine_restarts", "engine_state", "tokens",
    }  # fmt: skip
    server = {"request_duration_seconds", "time_to_first_token_seconds", "time_per_output_token_seconds", "requests"}
    assert {f"flashgate_edge_{name}" for name in edge} | {f"gen_ai_server_{name}" for name in server} <= names


def test_an_answered_request_is_counted_and_timed(registry: CollectorRegistry, metrics: EdgeMetrics) -> None:
    metrics.observe(RequestEnded(Outcome.FINISHED, 5.0, 1.0, 7, 5, 3.0))
    value = registry.get_sample_value
    assert value("gen_ai_server_requests_total", LABELS | {"outcome": "finished"}) == 1
    assert value("gen_ai_server_request_duration_seconds_sum", LABELS) == 5.0
    assert value("gen_ai_server_time_to_first_token_seconds_sum", LABELS) == 1.0
    assert value("gen_ai_server_time_per_output_token_seconds_sum", LABELS) == 0.5
    assert value("flashgate_edge_tokens_total", {"type": "prompt"}) == 7
    assert value("flashgate_edge_tokens_total", {"type": "completion"}) == 5


def test_answers_moved_on_by_one_step_are_its_batch(registry: CollectorRegistry, metrics: EdgeMetrics) -> None:
    steps: list[list[Event]] = [
        [Token(1, 7), Token(1, 8), Token(2, 7), Finished(2, "stop"), Started(3, 5)],  # a guess of the first was right
        [Token(1, 7)],
        [Started(4, 5)],
        [],
    ]
    for events in steps:
        metrics.observe(EngineStepped(Step(1.0, 2.0, events)))
    assert registry.get_sample_value("flashgate_edge_batch_size_count") == 2
    assert registry.get_sample_value("flashgate_edge_batch_size_sum") == 3


def test_a_request_without_a_token_has_no_time_to_first_token(
    registry: CollectorRegistry, metrics: EdgeMetrics
) -> None:
    metrics.observe(RequestEnded(Outcome.CANCELLED, 5.0, None, 7, 0, None))
    metrics.observe(RequestEnded(Outcome.FINISHED, 5.0, 1.0, 7, 1, 1.0))
    assert registry.get_sample_value("gen_ai_server_time_to_first_token_seconds_count", LABELS) == 1
    assert registry.get_sample_value("gen_ai_server_time_per_output_token_seconds_count", LABELS) == 0
    assert registry.get_sample_value("gen_ai_server_requests_total", LABELS | {"outcome": "cancelled"}) == 1


def test_engine_counters_go_on_over_a_restart(registry: CollectorRegistry, metrics: EdgeMetrics) -> None:
    metrics.observe(EngineWorked(Counters(3, 10, 4096, 0.5, 2, 3, 100, 40, 5, 39.5, 8, 6)))
    metrics.observe(EngineRestarted())
    metrics.observe(EngineWorked(Counters(1, 2, 4096, 0.25)))
    value = registry.get_sample_value
    assert value("flashgate_edge_expert_cache_hits_total") == 4
    assert value("flashgate_edge_drafted_tokens_total") == 8
    assert value("flashgate_edge_accepted_tokens_total") == 6
    assert value("flashgate_edge_expert_cache_misses_total") == 8
    assert value("flashgate_edge_expert_read_bytes_total") == 8192
    assert value("flashgate_edge_disk_read_seconds_total") == 0.75
    assert value("flashgate_edge_prefix_hits_total") == 2
    assert value("flashgate_edge_prefix_misses_total") == 3
    assert value("flashgate_edge_prefix_tokens_total") == 100
    assert value("flashgate_edge_expert_routings_total") == 40
    assert value("flashgate_edge_expert_substitutions_total") == 5
    assert value("flashgate_edge_router_weight_kept_total") == 39.5
    assert value("flashgate_edge_engine_restarts_total") == 1


def test_gauges_follow_the_status(registry: CollectorRegistry, metrics: EdgeMetrics) -> None:
    status = STATUS
    metrics.add_gauges(lambda: status)
    assert registry.get_sample_value("flashgate_edge_decode_tokens_per_second") == 6.5
    assert registry.get_sample_value("flashgate_edge_engine_state", {"state": "ready"}) == 1
    status = replace(STATUS, state=NodeState.RESTARTING, decode_tokens_per_second=1.5)
    assert registry.get_sample_value("flashgate_edge_decode_tokens_per_second") == 1.5
    assert registry.get_sample_value("flashgate_edge_engine_state", {"state": "ready"}) == 0
    assert registry.get_sample_value("flashgate_edge_engine_state", {"state": "restarting"}) == 1


def test_sensors_that_the_machine_has_not_are_left_out(registry: CollectorRegistry, metrics: EdgeMetrics) -> None:
    metrics.add_gauges(lambda: replace(STATUS, temperature_celsius=None, power=sensors.Power()))
    for name in ("temperature_celsius", "battery_ratio", "on_battery"):
        assert registry.get_sample_value(f"flashgate_edge_{name}") is None


def test_what_may_deviate_is_shown_only_where_it_may(registry: CollectorRegistry, metrics: EdgeMetrics) -> None:
    status = STATUS
    metrics.add_gauges(lambda: status)
    names = [f"flashgate_edge_{name}" for name in ("experts_per_token", "own_experts_per_token", "substitute_share")]
    assert [registry.get_sample_value(name) for name in names] == [13, 14, 0.375]
    status = replace(STATUS, deviation=Deviation(14, 13))
    assert [registry.get_sample_value(name) for name in names] == [13, 14, None]
    status = replace(STATUS, deviation=None)
    assert [registry.get_sample_value(name) for name in names] == [None, None, None]
    assert registry.get_sample_value("flashgate_edge_weight_precision") == 4.5


def fetch(port: int, path: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_and_health_are_served(registry: CollectorRegistry, metrics: EdgeMetrics) -> None:
    is_ready = False
    server = MetricsServer("127.0.0.1", 0, registry, lambda: is_ready)
    try:
        assert fetch(server.port, "/healthz") == (503, "not ready\n")
        is_ready = True
        assert fetch(server.port, "/healthz") == (200, "ok\n")
        assert "flashgate_edge_engine_restarts_total 0.0" in fetch(server.port, "/metrics")[1]
        assert fetch(server.port, "/secret")[0] == 404
    finally:
        server.close()


def test_a_port_that_is_taken_is_a_clear_error(registry: CollectorRegistry) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(EdgeError, match=r"cannot listen for metrics on 127\.0\.0\.1:"):
            MetricsServer("127.0.0.1", taken.getsockname()[1], registry, lambda: True)
