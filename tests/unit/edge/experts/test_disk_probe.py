"""The measured rate of the disk: every block of the files may be read, nothing beside them, and failures are errors."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.checkpoint.matrix import aligned_zeros
from edge.checkpoint.random_model import SMALL
from edge.config import ModelConfig
from edge.errors import StorageError
from edge.experts.disk_probe import QUEUE_DEPTHS, disk_roof

LAYOUT = ExpertLayout(MatrixLayout(Format.F32, 3, 5), MatrixLayout(Format.F32, 3, 5), MatrixLayout(Format.F32, 5, 3))
BLOCK = LAYOUT.block_bytes


@dataclass(frozen=True)
class Files:
    """Two layers of a model's experts."""

    expert_paths: tuple[Path, ...]
    experts: ExpertLayout = LAYOUT
    config: ModelConfig = SMALL


@pytest.fixture
def files(tmp_path: Path) -> Files:
    paths = (tmp_path / "a", tmp_path / "b")
    for path in paths:
        path.write_bytes(bytes([7]) * (SMALL.num_experts * BLOCK))
    return Files(paths)


def test_a_time_that_is_none_is_refused(files: Files) -> None:
    with pytest.raises(ValueError, match="seconds is 0, expected above 0"):
        disk_roof(files, seconds=0)


def test_a_missing_file_is_named(files: Files) -> None:
    files.expert_paths[1].unlink()
    with pytest.raises(StorageError, match=r"cannot open .*b: No such file"):
        disk_roof(files, seconds=0.01)


def test_a_file_that_was_cut_off_is_an_error(files: Files) -> None:
    for path in files.expert_paths:
        os.truncate(path, 0)
    with pytest.raises(StorageError, match="short read"):
        disk_roof(files, seconds=0.01)


def test_the_rate_is_that_of_one_of_the_settings(files: Files) -> None:
    roof = disk_roof(files, seconds=0.02)
    assert roof.bytes_per_second > 0
    assert roof.queue_depth in QUEUE_DEPTHS


def test_blocks_go_where_the_caller_says(files: Files) -> None:
    into = aligned_zeros(3 * BLOCK, 4096).reshape(3, BLOCK)
    disk_roof(files, seconds=0.01, into=into)
    assert (into == np.uint8(7)).all()
