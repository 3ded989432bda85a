"""A small packed model for the properties of engines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.checkpoint.random_model import write_random_checkpoint
from edge.cli import main
from tests.property.crowd import Drawn, noting_what_is_drawn


@pytest.fixture(scope="session")
def pack_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("model")
    write_random_checkpoint(work / "checkpoint", tokenizer=False)
    assert main(["convert", str(work / "checkpoint"), str(work / "pack"), "--bits", "4"]) == 0
    return work / "pack"


@pytest.fixture(scope="module")
def drawn() -> Iterator[dict[int, Drawn]]:
    """Filled by every engine of a module: what each job's tokens were drawn from."""
    with noting_what_is_drawn() as digests:
        yield digests
