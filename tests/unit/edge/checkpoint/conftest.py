"""Fixtures of the checkpoint tests."""

from pathlib import Path

import pytest

from edge.checkpoint.random_model import write_random_checkpoint
from tests.unit.edge.checkpoint.samples import TINY


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tiny bf16 checkpoint with a tokenizer, to read or to spoil."""
    path = tmp_path / "tiny-model"
    write_random_checkpoint(path, TINY)
    return path
