"""`flashgate-edge`: whatever the system refuses ends in one line, not in a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge.checkpoint.random_model import write_random_checkpoint
from edge.cli import main


@pytest.fixture
def pack_path(tmp_path: Path) -> Path:
    write_random_checkpoint(tmp_path / "checkpoint", tokenizer=False)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack"), "--bits", "4"]) == 0
    return tmp_path / "pack"


@pytest.mark.parametrize("command", [["info"], ["verify"], ["generate", "--ids", "1,2", "--max-tokens", "2"]])
def test_an_output_that_is_full_is_said_in_one_line(pack_path: Path, command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        arguments = [sys.executable, "-m", "edge", command[0], str(pack_path), *command[1:]]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "flashgate-edge: error: No space left on device"
    assert "Traceback" not in done.stderr
