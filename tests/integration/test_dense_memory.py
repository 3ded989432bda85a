"""Dense weights larger than the budget: the process stays inside it, page cache included, and says its minimum."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edge.budget import parse_bytes
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from edge.config import FULL_ATTENTION, LINEAR_FIELDS, QWEN3, QWEN3_NEXT
from tests.integration.test_memory_bound import memory_group, run_logits

BUDGET = "180MB"
# 28 layers of 8.4 MB: more than the budget by themselves.
DENSE = replace(
    SMALL,
    family=QWEN3,
    hidden_size=512,
    num_layers=28,
    layer_types=(FULL_ATTENTION,) * 28,
    norm_plus_one=False,
    attention_gate=False,
    num_attention_heads=16,
    head_dim=64,
    rotary_dim=64,
    num_experts=0,
    top_k=0,
    expert_size=0,
    shared_expert_size=0,
    mlp_size=2048,
)


# As much in its shared experts, with some routed ones beside them.
EXPERTS = replace(
    DENSE,
    family=QWEN3_NEXT,
    rotary_dim=16,
    norm_plus_one=True,
    attention_gate=True,
    num_experts=6,
    top_k=2,
    expert_size=64,
    shared_expert_size=2048,
    mlp_size=0,
    **{name: getattr(SMALL, name) for name in LINEAR_FIELDS},
)


@pytest.fixture(scope="module", params=[DENSE, EXPERTS], ids=["dense", "experts"])
def dense_pack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", request.param, tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "16"]) == 0
    return work / "pack"


def test_layers_stream_inside_the_budget_and_change_no_bit(dense_pack: Path, tmp_path: Path) -> None:
    budget = parse_bytes(BUDGET)
    assert (dense_pack / "dense.bin").stat().st_size > budget
    with memory_group(budget) as group:
        done = run_logits(dense_pack, tmp_path / "out.npy", BUDGET, group)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= budget
    with_room = run_logits(dense_pack, tmp_path / "all.npy", "2GB", os.devnull)
    assert with_room.returncode == 0, with_room.stderr
    assert int(with_room.stdout) > budget
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "all.npy").read_bytes()


def test_below_the_minimum_it_refuses_and_the_minimum_that_it_says_will_do(dense_pack: Path, tmp_path: Path) -> None:
    refused = run_logits(dense_pack, tmp_path / "out.npy", "90MB", os.devnull)
    assert refused.returncode != 0
    found = re.search(r"needs at least ([\d.]+ MB) for this model", refused.stderr)
    assert found, refused.stderr
    least = found[1].replace(" ", "")
    assert parse_bytes(least) < (dense_pack / "dense.bin").stat().st_size
    with memory_group(parse_bytes(least)) as group:
        done = run_logits(dense_pack, tmp_path / "out.npy", least, group)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= parse_bytes(least)
