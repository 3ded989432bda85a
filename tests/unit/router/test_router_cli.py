"""`flashgate`: whatever the system refuses ends in one line, not in a traceback."""

import subprocess
import sys
from pathlib import Path


def test_an_output_that_is_full_is_said_in_one_line(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("version: 1\nrules: []\ndefault: {prefer: edge, reason: edge_first}\n")
    with Path("/dev/full").open("w") as full:
        arguments = [sys.executable, "-m", "router", "policy", "check", str(policy)]
        done = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "flashgate: error: No space left on device\n"
