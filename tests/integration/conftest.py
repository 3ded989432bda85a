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
    # The model is named after its source.
    source, pack = directory / "small", directory / "pack"
    for argv in (["random", str(source)], ["convert", str(source), str(pack)]):
        subprocess.run([command("flashgate-edge"), *argv], check=True, capture_output=True, timeout=120)
    return pack
