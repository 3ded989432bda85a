"""Stand-ins for the project's commands: small Python scripts."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Script = Callable[[str, str], str]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes an executable Python script; returns its path."""

    def write(name: str, code: str) -> str:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{code}")
        path.chmod(0o755)
        return str(path)

    return write
