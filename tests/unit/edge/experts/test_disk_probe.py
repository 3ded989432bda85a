"""The measured rate of the disk: every block of the files may be read, nothing beside them, and failures are errors."""

import os
from pathlib import Path

import numpy as np
import pytest

from edge.checkpoint.matrix import aligned_zeros
from edge.errors import StorageError
from edge.experts.disk_probe import QUEUE_DEPTHS, BlockFiles, disk_roof

BLOCK, NUM_BLOCKS = 8192, 64


@pytest.fixture
def files(tmp_path: Path) -> BlockFiles:
    """Two layers of a model's experts."""
    paths = (tmp_path / "a", tmp_path / "b")
    for path in paths:
        path.write_bytes(bytes([7]) * (NUM_BLOCKS * BLOCK))
    return BlockFiles(paths, BLOCK, NUM_BLOCKS)


def test_a_time_that_is_none_is_refused(files: BlockFiles) -> None:
    with pytest.raises(ValueError, match="seconds is 0, expected above 0"):
        disk_roof(files, seconds=0)


def test_a_missing_file_is_named(files: BlockFiles) -> None:
    files.paths[1].unlink()
    with pytest.raises(StorageError, match=r"cannot open .*b: No such file"):
        disk_roof(files, seconds=0.01)


def test_a_file_that_was_cut_off_is_an_error(files: BlockFiles) -> None:
    for path in files.paths:
        os.truncate(path, 0)
    with pytest.raises(StorageError, match="short read"):
        disk_roof(files, seconds=0.01)


def test_the_rate_is_that_of_one_of_the_settings(files: BlockFiles) -> None:
    roof = disk_roof(files, seconds=0.02)
    assert roof.bytes_per_second > 0
    assert roof.queue_depth in QUEUE_DEPTHS


def test_blocks_go_where_the_caller_says(files: BlockFiles) -> None:
    into = aligned_zeros(3 * BLOCK, 4096).reshape(3, BLOCK)
    disk_roof(files, seconds=0.01, into=into)
    assert (into == np.uint8(7)).all()
