"""Files of random blocks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

BLOCK = 3 * 2**20 + 4096  # several parts, the last one short


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[str, int], Path]:
    """Writes a file of random bytes."""

    def make(name: str, size: int) -> Path:
        path = tmp_path / name
        path.write_bytes(np.random.default_rng(len(name)).bytes(size))
        return path

    return make
