"""Fixtures that start the project's real processes and leave none behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import Processes


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
