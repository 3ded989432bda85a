"""`--memory` bounds the real process: its peak, and its page cache where the kernel lets us set a limit."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.budget import parse_bytes
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.cli import main

BUDGET = "190MB"
# 192 experts of 786 KB, 151 MB: more than the budget leaves room for.
CONFIG = replace(
    SMALL,
    hidden_size=512,
    num_layers=6,
    layer_types=SMALL.layer_types[:3] * 2,
    num_experts=32,
    expert_size=256,
    shared_expert_size=300,
)
NUM_TOKENS = 300
# Runs the command in a process of its own, in a group of processes, then reports its peak.
PROGRAM = """
import os
import sys
with open(sys.argv[1], "w") as group:
    group.write(str(os.getpid()))
from edge.budget import peak_resident_bytes
from edge.cli import main
status = main(sys.argv[2:])
print(peak_resident_bytes())
sys.exit(status)
"""


@pytest.fixture(scope="module")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", CONFIG, tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "16"]) == 0
    return work / "pack"


@contextlib.contextmanager
def memory_group(limit_bytes: int) -> Iterator[str]:
    """The file that puts a process under a limit, page cache included; /dev/null where we may not have one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        limit = "memory.limit_in_bytes" if controllers else "memory.max"
        group = Path("/sys/fs/cgroup") / controllers / place.lstrip("/") / f"flashgate-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(limit_bytes))
                yield str(group / "cgroup.procs")
                return
            finally:
                group.rmdir()
    yield os.devnull


def run_logits(pack_path: Path, out: Path, memory: str, group: str) -> "subprocess.CompletedProcess[str]":
    ids = ",".join(str(i % CONFIG.vocab_size) for i in range(NUM_TOKENS))
    command = [sys.executable, "-c", PROGRAM, group, "logits", str(pack_path), "--ids", ids, "--out", str(out)]
    command += ["--memory", memory, "--prompt-tokens", "280"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_process_stays_under_its_budget_page_cache_included(pack_path: Path, tmp_path: Path) -> None:
    budget = parse_bytes(BUDGET)
    with memory_group(budget) as group:
        done = run_logits(pack_path, tmp_path / "out.npy", BUDGET, group)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= budget
    with_room = run_logits(pack_path, tmp_path / "all.npy", "2GB", os.devnull)
    assert with_room.returncode == 0, with_room.stderr
    assert int(with_room.stdout) > budget  # or the test would prove nothing
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "all.npy").read_bytes()
