"""What flows through the layers while a model is calibrated: the residual stream of every token, in files.

Two of them: of the unquantised model, and of the packed one as far as it is packed. Their difference is what later
layers can make good.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.disk import file_crc
from edge.errors import PackError

Floats = NDArray[np.float32]

ROWS_AT_ONCE = 1024  # tokens whose activations are in memory together


@dataclass(frozen=True, slots=True)
class Streams:
    """Both, f32 [T, width] on disk: the unquantised model's and the packed one's."""

    wanted: Floats
    given: Floats


def create(directory: Path, name: str, num_tokens: int, width: int) -> Streams:
    """New files `name`.wanted and `name`.given in `directory`."""
    wanted, given = (np.memmap(path, np.float32, "w+", shape=(num_tokens, width)) for path in paths(directory, name))
    return Streams(wanted, given)


def reopen(directory: Path, name: str, num_tokens: int, width: int) -> Streams:
    """Files that are there, to read."""
    wanted, given = (np.memmap(path, np.float32, "r", shape=(num_tokens, width)) for path in paths(directory, name))
    return Streams(wanted, given)


def paths(directory: Path, name: str) -> tuple[Path, Path]:
    """Of both files."""
    return directory / f"{name}.wanted", directory / f"{name}.given"


def checksums(directory: Path, name: str) -> list[list[int]]:
    """Size and CRC-32C of both; none where one cannot be read."""
    try:
        return [list(file_crc(path)) for path in paths(directory, name)]
    except PackError:
        return []


def remove(directory: Path, name: str) -> None:
    """Both files, whether they are there or not."""
    for path in paths(directory, name):
        path.unlink(missing_ok=True)


def blocks(num_tokens: int) -> Iterator[slice]:
    """All tokens, some at a time."""
    return (slice(begin, min(begin + ROWS_AT_ONCE, num_tokens)) for begin in range(0, num_tokens, ROWS_AT_ONCE))
