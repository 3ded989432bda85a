"""`flashgate-edge bench` and `plan` as real processes."""

import json
import subprocess
from pathlib import Path

import pytest

from edge.experts.trace import Trace
from tests.integration.edge_node import make_pack
from tests.integration.harness import command

SHORT = ("--prompt-tokens", "8", "--tokens", "3", "--warmup", "1", "--threads", "1")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), tokenizer=False)


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    argv = [command("flashgate-edge"), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "--tokens", "0"), "tokens is 0: it must be at least 1"),
        (("bench", "--sequences", "-1"), "sequences is -1: it must be at least 1"),
        (("bench", "--memory", "much"), "'much' is not a size in bytes"),
        (("bench", "--memory", "5MB"), "needs at least"),
        (("bench", "--threads", "0"), "threads is 0"),
        (("plan", "--memory", "5MB"), "needs at least"),
        (("plan", "--disk-rate", "fast"), "'fast' is not a size in bytes"),
        (("plan", "--disk-rate", "0GB/s"), "'0GB/s' is no rate: it must be above 0"),
        (("plan", "--prompt-tokens", "0"), "prompt_tokens is 0: it must be at least 1"),
        (("plan", "--recall", "1.1"), "recall is 1.1: it must be 0 to 1"),
        (("plan", "--trace", "/dev/null"), "/dev/null: not a trace"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(pack: Path, arguments: tuple[str, ...], message: str) -> None:
    name, *options = arguments
    done = run(name, pack, *options)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("flashgate-edge: error: ")]
    assert message in line


def test_bench_reports_speed_and_roofs_and_records_a_trace_for_plan(pack: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    done = run("bench", pack, "--memory", "300MB", *SHORT, "--sequences", "2", "--trace", trace, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["decode_tokens_per_second"] == pytest.approx(2 * figures["decode_tokens_per_second_per_sequence"])
    for phase in ("decode", "prefill"):
        low, high = figures[f"{phase}_roof_share_range"]
        assert 0 < low <= figures[f"{phase}_roof_share"] <= high
    assert 0 <= figures["cache_hit_rate"] <= 1
    assert 0 < figures["peak_memory_bytes"] <= 300_000_000
    assert sum(not access.is_scan for access in Trace.read(trace)) >= 3 * figures["num_layers"]
    planned = run("plan", pack, "--memory", "300MB", "--trace", trace, "--threads", "1", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["routing"] == str(trace)


def test_both_have_a_table_for_people(pack: Path) -> None:
    benched = run("bench", pack, "--memory", "300MB", *SHORT)
    assert benched.returncode == 0, benched.stderr
    assert "of the" in benched.stdout
    assert "the time goes to" in benched.stdout
    rates = ("--disk-rate", "7GB/s", "--compute-rate", "30GB/s")
    planned = run("plan", pack, "--memory", "300MB", *rates, "--routing", "skewed")
    assert planned.returncode == 0, planned.stderr
    assert "7.00 GB/s (given)" in planned.stdout
