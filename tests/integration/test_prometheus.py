"""The real Prometheus scrapes all three processes and answers what a dashboard asks."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
from flashgate.v1 import common_pb2, gateway_pb2, gateway_pb2_grpc

from tests.integration.harness import Process, Processes, eventually, get, until_ready
from tests.integration.prometheus_server import CONFIG, Prometheus, binary, complaints

# Each request is small: the test is about the figures, not about the model.
MAX_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Stack:
    """All three processes and the Prometheus that watches them."""

    metrics: dict[str, str]
    gateway: gateway_pb2_grpc.GatewayServiceStub
    prometheus: Prometheus

    def ask(self, *tags: str, ttft_ms: int | None = None) -> gateway_pb2.Decision:
        """One request; its decision."""
        request = gateway_pb2.GenerateRequest(
            messages=[common_pb2.ChatMessage(role="user", content="Say something.")],
            sampling=common_pb2.Sampling(max_tokens=MAX_TOKENS),
            privacy_tags=tags,
        )
        if ttft_ms is not None:
            request.latency.ttft.FromMilliseconds(ttft_ms)
        first, *_ = self.gateway.Generate(request, timeout=60)
        return first.decision


@pytest.fixture(scope="module")
def stack(module_processes: Processes, small_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    edge = module_processes.edge(small_pack, "--memory", "300MB")
    cloud = module_processes.cloud_stub("--ttft-ms", "5")
    gateway = _gateway(module_processes, edge, cloud)
    metrics = {
        "flashgate-gateway": gateway.ready()["http"],
        "flashgate-edge": edge.ready()["metrics"],
        "flashgate-cloud-stub": cloud.ready()["metrics"],
    }
    prometheus = Prometheus(module_processes, tmp_path_factory.mktemp("prometheus"), metrics)
    with grpc.insecure_channel(gateway.ready()["grpc"], options=(("grpc.enable_http_proxy", 0),)) as channel:
        stack = Stack(metrics, gateway_pb2_grpc.GatewayServiceStub(channel), prometheus)
        _drive(stack)
        yield stack
    prometheus.close()


def _gateway(processes: Processes, edge: Process, cloud: Process) -> Process:
    gateway = processes.gateway("--edge", edge.ready()["grpc"], "--cloud", cloud.ready()["grpc"])
    until_ready(gateway, "edge", "cloud")
    return gateway


def _drive(stack: Stack) -> None:
    """Requests on both lanes, once before a scrape and once after it: a rate needs two samples."""
    for round_ in (1, 2):
        for _ in range(5):
            assert stack.ask("phi").lane == gateway_pb2.LANE_EDGE
            # No edge has its first token in a millisecond, so this one goes to the cloud.
            assert stack.ask("public", ttft_ms=1).lane == gateway_pb2.LANE_CLOUD
        by_job = "sum(gen_ai_server_time_to_first_token_seconds_count{job='flashgate-%s'}) >= %d"
        counts = {"gateway": 10, "edge": 5, "cloud-stub": 5}
        scraped = " and ".join(by_job % (job, count * round_) for job, count in counts.items())
        eventually(partial(stack.prometheus.query, scraped), "the scrape of these requests")


def rows(stack: Stack, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
    """The positive values of a query, by the values of `labels`."""
    answer = stack.prometheus.query(expression)
    return {tuple(dict(metric)[label] for label in labels): value for metric, value in answer.items() if value > 0}


def test_the_shipped_configuration_is_valid() -> None:
    checked = subprocess.run(
        [binary("promtool"), "check", "config", str(CONFIG)], capture_output=True, text=True, check=False, timeout=30
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("job", ["flashgate-gateway", "flashgate-edge", "flashgate-cloud-stub"])
def test_promtool_has_no_complaint(stack: Stack, job: str) -> None:
    assert complaints(get(f"http://{stack.metrics[job]}/metrics")) == ""


def test_all_three_are_up(stack: Stack) -> None:
    assert set(rows(stack, "up == 1", "job")) == {(job,) for job in stack.metrics}


def test_rate_by_lane(stack: Stack) -> None:
    expression = 'sum by (lane) (rate(gen_ai_server_request_duration_seconds_count{job="flashgate-gateway"}[1m]))'
    assert set(rows(stack, expression, "lane")) == {("edge",), ("cloud",)}


def test_p95_time_to_first_token_by_lane(stack: Stack) -> None:
    p95 = "histogram_quantile(0.95, sum by (le, lane) (rate(gen_ai_server_time_to_first_token_seconds_bucket{%s}[1m])))"
    by_lane = rows(stack, p95 % 'job="flashgate-gateway"', "lane")
    assert set(by_lane) == {("edge",), ("cloud",)}
    assert all(0 < seconds < 60 for seconds in by_lane.values())
    # The stub waits 5 ms before its first token.
    assert by_lane["cloud",] >= 0.005
    # The lanes' own view, beside the gateway's.
    assert set(rows(stack, p95 % 'job!="flashgate-gateway"', "lane")) == {("edge",), ("cloud",)}


def test_edge_tokens_per_second(stack: Stack) -> None:
    assert rows(stack, "flashgate_edge_decode_tokens_per_second")
    assert rows(stack, "flashgate_edge_prefill_tokens_per_second")


def test_expert_cache_hit_rate(stack: Stack) -> None:
    hits, misses = (f"rate(flashgate_edge_expert_cache_{kind}_total[1m])" for kind in ("hits", "misses"))
    (share,) = rows(stack, f"{hits} / ({hits} + {misses})").values()
    assert 0 < share <= 1
    assert rows(stack, "flashgate_edge_expert_read_bytes_total")


def test_decisions_by_rule_and_reason(stack: Stack) -> None:
    expression = "sum by (lane, rule, reason) (increase(flashgate_route_decisions_total[1m]))"
    decisions = rows(stack, expression, "lane", "rule", "reason")
    assert {lane for lane, _, _ in decisions} == {"edge", "cloud"}
    assert "edge_too_slow" in {reason for lane, _, reason in decisions if lane == "cloud"}
    assert all(rule and reason for _, rule, reason in decisions)


def test_refused_egress_by_floor(stack: Stack) -> None:
    refused = rows(stack, "sum by (floor, cause) (flashgate_egress_denied_total)", "floor", "cause")
    assert {floor for floor, _ in refused} == {"device"}
    assert sum(refused.values()) >= 10


def test_predicted_time_to_first_token_stands_beside_the_real_one(stack: Stack) -> None:
    assert ("edge",) in rows(stack, "sum by (lane) (flashgate_predicted_ttft_seconds_count)", "lane")
