"""`--memory` is a limit that the kernel may hold us to: commands run in a control group of exactly that size.

Nothing may be killed, page cache included, whatever the prompt, the number of sequences and the size.
"""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edge.budget import parse_bytes
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main
from tests.bench.memory_group import MemoryGroup, NoMemoryGroup, memory_group
from tests.integration.harness import command

# 384 experts of 786 KB, 302 MB: far more than the least budget leaves room for.
CONFIG = replace(
    SMALL,
    hidden_size=512,
    num_layers=6,
    layer_types=SMALL.layer_types[:3] * 2,
    num_experts=64,
    expert_size=256,
    shared_expert_size=300,
)
LONG_PROMPT = ",".join(str(i * 7 % CONFIG.vocab_size) for i in range(400))
GENERATE = ("--ids", LONG_PROMPT, "--max-tokens", "12", "--context", "512")
MINIMUM = re.compile(r"needs at least ([\d.]+ [kMG]B)")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", CONFIG, tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "16"]) == 0
    return work / "pack"


@pytest.fixture(scope="module", autouse=True)
def groups() -> None:
    """Skips where this machine lets us have no memory control group."""
    try:
        with memory_group(1 << 30):
            pass
    except NoMemoryGroup as reason:
        pytest.skip(f"no memory control group: {reason}")


def run(group: MemoryGroup, name: str, pack: Path, memory: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return group.run([command("flashgate-edge"), name, str(pack), "--memory", memory, *options])


def answered(pack: Path, memory: str, name: str, *options: str) -> str:
    """The stdout of a command that runs in a group of exactly `memory` and is not killed."""
    with memory_group(parse_bytes(memory)) as group:
        done = run(group, name, pack, memory, *options)
        assert done.returncode == 0, done.stderr
        assert group.oom_kills == 0
        assert group.peak_bytes <= parse_bytes(memory)
    return done.stdout


def least(pack: Path, name: str, *options: str) -> str:
    """The minimum that is quoted by a command that got too little."""
    with memory_group(1 << 30) as group:
        done = run(group, name, pack, "20MB", *options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    found = MINIMUM.search(line)
    assert found, line
    return found[1]


def test_a_long_prompt_has_the_same_answer_in_the_least_memory_and_in_plenty(pack: Path) -> None:
    minimum = least(pack, "generate", *GENERATE)
    answers = {answered(pack, memory, "generate", *GENERATE) for memory in (minimum, "260MB", "600MB")}
    assert len(answers) == 1
    assert len(answers.pop().split()) == 12


def test_bench_of_several_sequences_stays_inside_too_and_reports_what_the_kernel_counts(pack: Path) -> None:
    options = ("--prompt-tokens", "100", "--tokens", "3", "--warmup", "0", "--sequences", "3", "--json")
    for memory in (least(pack, "bench", *options), "300MB"):
        figures = json.loads(answered(pack, memory, "bench", *options))
        assert figures["memory_counted_by"] == "control group"
        # What other processes have mapped too, such as libraries, may be charged to them.
        assert 30_000_000 < figures["peak_memory_bytes"] <= parse_bytes(memory)
        assert figures["page_cache_bytes"] < 20_000_000
        assert figures["expert_bytes_per_token"] > 0
