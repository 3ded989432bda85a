"""A server that trades quality for speed says so with each answer, in its status and in its metrics."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.checkpoint.random_model import SMALL
from tests.integration.edge_node import Answer, EdgeNode, ids_request, make_pack
from tests.integration.harness import Processes, command, eventually, get

PROMPT = (3, 1, 4, 1, 5)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), tokenizer=False, ends=False)


def metric(node: EdgeNode, name: str) -> float | None:
    families = text_string_to_metric_families(get(f"http://{node.metrics}/metrics"))
    samples = [sample for family in families for sample in family.samples if sample.name == f"flashgate_edge_{name}"]
    return samples[0].value if samples else None


def chosen(answer: Answer, experts: int) -> int:
    """How often an expert was chosen: the last token drawn goes through no layer."""
    usage = answer.finished.usage
    return int((usage.prompt_tokens + usage.completion_tokens - 1) * SMALL.num_layers * experts)


def test_what_deviated_is_told_per_request_and_in_total(processes: Processes, pack: Path) -> None:
    node = EdgeNode(processes, pack, "--experts-per-token", "3", "--substitute", "0.3")
    requests = [ids_request(*PROMPT, number, max_tokens=20) for number in range(3)]
    with ThreadPoolExecutor(3) as callers:
        answers = list(callers.map(node.answer, requests))
    told = [answer.finished.deviations for answer in answers]
    for answer, deviations in zip(answers, told, strict=True):
        assert (deviations.experts_per_token, deviations.own_experts_per_token) == (3, SMALL.top_k)
        assert deviations.substitute == 0.3
        assert deviations.chosen_experts == chosen(answer, 3)
        assert 0 < deviations.router_weight_kept < 1
    replaced = sum(deviations.substituted_experts for deviations in told)
    assert replaced > 0  # a cold cache has few experts
    assert eventually(lambda: node.status().deviations.substituted_experts == replaced, "all counters")
    total = node.status().deviations
    assert total.chosen_experts == sum(deviations.chosen_experts for deviations in told)
    assert metric(node, "expert_substitutions_total") == replaced
    assert metric(node, "expert_routings_total") == total.chosen_experts / 3
    assert (metric(node, "experts_per_token"), metric(node, "own_experts_per_token")) == (3, SMALL.top_k)
    assert metric(node, "substitute_share") == 0.3
    assert "answers_may_deviate" in node.process.stderr()
    node.close()


def test_a_server_that_may_not_deviate_says_nothing_of_it(processes: Processes, pack: Path) -> None:
    node = EdgeNode(processes, pack)
    answer = node.answer(ids_request(*PROMPT))
    assert not answer.finished.HasField("deviations")
    assert answer.started.weight_bits == node.status().weight_bits == 8
    assert not node.status().HasField("deviations")
    assert metric(node, "expert_routings_total") == 0
    assert metric(node, "experts_per_token") is None
    node.close()


def run(pack: Path, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [command("flashgate-edge"), name, str(pack), "--memory", "400MB", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", ["serve", "generate", "bench", "logits"])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--experts-per-token", "5"), "experts_per_token is 5: it must be 1 to the model's own 4"),
        (("--experts-per-token", "0"), "experts_per_token is 0: it must be at least 1"),
        (("--substitute", "nan"), "substitute is nan: it must be above 0 and at most 1"),
        (("--substitute", "1.01"), "substitute is 1.01"),
    ],
)
def test_what_is_out_of_range_is_one_clear_line(
    pack: Path, tmp_path: Path, name: str, option: tuple[str, str], message: str
) -> None:
    needed = {"generate": ("--ids", "1"), "logits": ("--ids", "1", "--out", str(tmp_path / "logits.npy"))}
    done = run(pack, name, *option, *needed.get(name, ()))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"flashgate-edge: error: {message}")


def test_generate_prints_what_deviated_and_nothing_of_it_otherwise(pack: Path) -> None:
    asked = ("--ids", "3 1 4", "--max-tokens", "12")
    figures = run(pack, "generate", *asked, "--experts-per-token", "2", "--substitute", "0.5").stderr
    assert "experts per token   2, the model's own are 4" in figures
    assert "were the router's own" in figures
    assert "of that of the model's own choice" in figures
    assert "router" not in run(pack, "generate", *asked).stderr
