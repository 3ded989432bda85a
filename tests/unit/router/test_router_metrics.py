"""Metrics: closed label sets, and names that dashboards rely on."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from router.metrics import MAX_MODELS, Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_model_that_no_backend_named_counts_as_other(metrics: Metrics) -> None:
    metrics.backend_state("edge", "edge", "known", available=True)
    for model in ("known", "made up by a caller"):
        metrics.first_text("edge", model, 0.1)
    name = "gen_ai_server_time_to_first_token_seconds_count"
    assert sample(metrics, name, lane="edge", model="known") == 1
    assert sample(metrics, name, lane="edge", model="other") == 1


def test_backend_that_keeps_changing_its_model_does_not_grow_the_metrics(metrics: Metrics) -> None:
    for number in range(10 * MAX_MODELS):
        metrics.backend_state("edge", "edge", f"model-{number}", available=True)
        metrics.first_text("edge", f"model-{number}", 0.1)
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    models = {sample.labels["model"] for family in families for sample in family.samples if "model" in sample.labels}
    assert len(models) <= MAX_MODELS


def test_only_the_policy_in_force_has_an_info_series(metrics: Metrics) -> None:
    metrics.policy_in_force("sha256:old")
    metrics.policy_in_force("sha256:new")
    assert sample(metrics, "flashgate_policy_info", hash="sha256:new") == 1
    assert sample(metrics, "flashgate_policy_info", hash="sha256:old") is None


def test_time_per_token_leaves_the_first_out(metrics: Metrics) -> None:
    metrics.backend_state("edge", "edge", "m", available=True)
    metrics.usage("edge", "m", 7, 1, decode_s=0.0)
    metrics.usage("edge", "m", 7, 5, decode_s=2.0)
    assert sample(metrics, "gen_ai_server_time_per_output_token_seconds_sum", lane="edge", model="m") == 0.5
    assert sample(metrics, "gen_ai_server_time_per_output_token_seconds_count", lane="edge", model="m") == 1


def test_both_outcomes_of_a_reload_exist_from_the_start(metrics: Metrics) -> None:
    for outcome in ("loaded", "refused"):
        assert sample(metrics, "flashgate_policy_reloads_total", outcome=outcome) == 0
