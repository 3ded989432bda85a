"""`flashgate-edge`: whatever the system refuses ends in one line, not in a traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from edge import cli
from edge.checkpoint.random_model import write_random_checkpoint
from edge.cli import main


@pytest.fixture
def pack_path(tmp_path: Path) -> Path:
    write_random_checkpoint(tmp_path / "checkpoint", tokenizer=False)
    assert main(["convert", str(tmp_path / "checkpoint"), str(tmp_path / "pack"), "--bits", "4"]) == 0
    return tmp_path / "pack"


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_is_no_fault(pack_path: Path, closed: str) -> None:
    command = f'"$0" -m edge verify "$1" {closed}>&-'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, pack_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert done.stderr == ""


def test_an_interrupt_while_the_command_line_is_read_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "build_parser", interrupted)
    assert main(["info"]) == 130


@pytest.mark.parametrize("command", [["info"], ["verify"], ["generate", "--ids", "1,2", "--max-tokens", "2"]])
def test_an_output_that_is_full_is_said_in_one_line(pack_path: Path, command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        arguments = [sys.executable, "-m", "edge", command[0], str(pack_path), *command[1:]]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "flashgate-edge: error: No space left on device"
    assert "Traceback" not in done.stderr
