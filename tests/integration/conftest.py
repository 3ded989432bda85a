"""Fixtures that start the project's real processes and leave none behind."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import Processes, command


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """For processes of one test."""
    started = Processes(tmp_path)
    yield started
    started.close()


@pytest.fixture(scope="module")
def module_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """For processes that all tests of a module share."""
    started = Processes(tmp_path_factory.mktemp("processes"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def small_pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a tokenizer, packed by the edge's own commands."""
    directory = tmp_path_factory.mktemp("model")
    for argv in (
        ["random", str(directory / "source")],
        ["convert", str(directory / "source"), str(directory / "small")],
    ):
        subprocess.run([command("flashgate-edge"), *argv], check=True, capture_output=True, timeout=120)
    return directory / "small"
