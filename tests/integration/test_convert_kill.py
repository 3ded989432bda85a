"""A real conversion killed at random points: nothing half-written is loadable, the next run goes on to equal bytes."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.checkpoint.pack import Pack
from edge.checkpoint.random_model import SMALL, write_random_checkpoint
from edge.checkpoint.verify import Verification
from edge.errors import PackError

NUM_KILLS = 3  # of 1 to 3 journal lines each, of the 14 that a whole run writes
TIMEOUT_S = 60
CONVERT = [sys.executable, "-m", "edge", "convert"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 25 MB, so that a conversion takes long enough to be hit."""
    path = tmp_path_factory.mktemp("kill") / "source"
    config = dataclasses.replace(
        SMALL, num_layers=12, layer_types=SMALL.layer_types * 3, expert_size=40, num_experts=48, top_k=3
    )
    write_random_checkpoint(path, config)
    return path


def contents(pack: Path) -> dict[str, bytes]:
    return {str(path.relative_to(pack)): path.read_bytes() for path in pack.rglob("*") if path.is_file()}


def num_lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def assert_whole_or_not_loadable(path: Path) -> None:
    try:
        Pack.open(path)
    except PackError:
        return
    assert not list(Verification(path).run(lambda _: None))


def kill_after(source: Path, out: Path, new_lines: int, delay_s: float) -> None:
    """Start a conversion and kill it a moment after its journal has grown by so many lines."""
    journal = out.with_name(out.name + ".partial") / "journal.jsonl"
    enough = num_lines(journal) + new_lines
    process = subprocess.Popen(
        [*CONVERT, str(source), str(out), "--bits", "4"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while process.poll() is None and num_lines(journal) < enough:
            assert time.monotonic() < deadline
            os.sched_yield()
        time.sleep(delay_s)  # not a wait for anything: the random point
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_conversion_survives_being_killed_anywhere(source: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    subprocess.run([*CONVERT, str(source), str(whole), "--bits", "4"], check=True, capture_output=True)
    chance = random.Random(5)
    for _ in range(NUM_KILLS):
        kill_after(source, out, chance.randrange(1, 4), chance.uniform(0, 0.01))
        assert_whole_or_not_loadable(out)
        assert_whole_or_not_loadable(out.with_name("out.partial"))
    done = subprocess.run([*CONVERT, str(source), str(out), "--bits", "4"], check=True, capture_output=True, text=True)
    assert "going on where an earlier run was stopped" in done.stderr
    assert contents(out) == contents(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_a_conversion_started_twice_is_refused_and_an_interrupted_one_goes_on(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    journal = tmp_path / "out.partial" / "journal.jsonl"
    process = subprocess.Popen([*CONVERT, str(source), str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while num_lines(journal) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGSTOP)
        second = subprocess.run([*CONVERT, str(source), str(out)], capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert "another process is writing it" in second.stderr
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    third = subprocess.run([*CONVERT, str(source), str(out)], capture_output=True, text=True, check=True)
    assert "going on where an earlier run was stopped" in third.stderr
    Pack.open(out).load_dense()
