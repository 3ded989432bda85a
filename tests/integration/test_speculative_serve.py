"""Speculative decoding as real processes: the same answers, told in figures and metrics, and the budget kept."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from edge.budget import parse_bytes
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from tests.integration import test_memory_bound
from tests.integration.edge_node import EdgeNode, ids_request
from tests.integration.harness import Processes, get
from tests.integration.test_memory_bound import PROGRAM, memory_group

LARGER = replace(test_memory_bound.CONFIG, num_mtp_layers=1, eos_token_ids=())
BUDGET = "230MB"


def make_pack(work: Path, bits: int, larger: bool) -> Path:
    config = LARGER if larger else replace(SMALL, num_mtp_layers=1, eos_token_ids=())
    write_random_checkpoint(work / "checkpoint", config, tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", str(bits)]) == 0
    return work / "pack"


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pack(tmp_path_factory.mktemp("model"), 8, larger=False)


def test_answers_are_those_without_drafts_and_drafts_are_told(processes: Processes, pack: Path) -> None:
    requests = [ids_request(*range(1, 6 * number + 3), max_tokens=24) for number in range(4)]
    found = []
    for options in (("--speculate", "off"), ("--speculate", "always", "--draft-tokens", "2")):
        node = EdgeNode(processes, pack, "--sequences", "3", *options)
        with ThreadPoolExecutor(len(requests)) as pool:
            found.append(list(pool.map(node.answer, requests)))
        metrics = get(f"http://{node.metrics}/metrics")
        node.close()
    plain, drafted = found
    assert [answer.ids for answer in drafted] == [answer.ids for answer in plain]
    assert all(answer.finished.drafted_tokens == 0 for answer in plain)
    assert all(answer.finished.drafted_tokens > answer.finished.accepted_tokens for answer in drafted)
    (counted,) = re.findall(r"^flashgate_edge_drafted_tokens_total (\S+)$", metrics, re.MULTILINE)
    assert float(counted) == sum(answer.finished.drafted_tokens for answer in drafted)


def run_generate(pack: Path, memory: str, group: str) -> "subprocess.CompletedProcess[str]":
    ids = ",".join(str(token) for token in range(3, 200))
    command = [sys.executable, "-c", PROGRAM, group, "generate", str(pack), "--ids", ids, "--max-tokens", "40"]
    command += ["--memory", memory, "--context", "256", "--speculate", "always", "--draft-tokens", "3"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_process_stays_under_its_budget_while_it_drafts(tmp_path: Path) -> None:
    pack = make_pack(tmp_path, 16, larger=True)
    with memory_group(parse_bytes(BUDGET)) as group:
        tight = run_generate(pack, BUDGET, group)
    roomy = run_generate(pack, "2GB", os.devnull)
    for done in (tight, roomy):
        assert done.returncode == 0, done.stderr
        assert re.search(r"drafted +\d\d+ tokens", done.stderr)
    answer, peak = tight.stdout.rsplit("\n", 2)[0], int(tight.stdout.split()[-1])
    assert peak <= parse_bytes(BUDGET) < int(roomy.stdout.split()[-1])
    assert answer == roomy.stdout.rsplit("\n", 2)[0]
