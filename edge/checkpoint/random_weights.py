"""Random matrices in a pack's own bytes, as fast as memory takes them: random codes, and scales that set the spread."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import PCG64
from numpy.typing import NDArray

from edge.checkpoint.layout import BIASES_OFFSET, CODES_OFFSET, RUN_COLUMNS, SCALES_OFFSET, TILE_ROWS, MatrixLayout
from edge.checkpoint.matrix import Bytes, records
from edge.quant.floats import STORED_DTYPES, narrow

PIECE_BYTES = 2**24  # at a time of a matrix larger than that
LEVELS = 256  # of a random float: one byte chooses


@dataclass(frozen=True, slots=True)
class RandomMatrix:
    """Independent weights of mean 0, spread evenly; the same seed gives the same bytes.

    The first `num_silent_rows`, a multiple of 16, are 0. The first 64 columns, or the first group's if it is larger,
    are all `constant` unless that is None.
    """

    layout: MatrixLayout
    std: float
    seed: tuple[int, ...]
    num_silent_rows: int = 0
    constant: float | None = None

    def __post_init__(self) -> None:
        if self.layout.cols % RUN_COLUMNS or self.num_silent_rows % TILE_ROWS:
            raise ValueError(f"random {self.layout} with {self.num_silent_rows} silent rows")

    def pieces(self) -> Iterator[Bytes]:
        """All bytes of the matrix, in order, in pieces of some rows."""
        layout = self.layout
        at_once = max(1, PIECE_BYTES // (layout.tile_bytes or TILE_ROWS * layout.row_bytes)) * TILE_ROWS
        for index, start in enumerate(range(0, layout.rows, at_once)):
            num_rows = min(at_once, layout.rows - start)
            make = self._tiles if layout.format.is_quantized else self._rows
            yield make(num_rows, min(num_rows, max(0, self.num_silent_rows - start)), (*self.seed, index))

    def _tiles(self, num_rows: int, num_silent: int, seed: tuple[int, ...]) -> Bytes:
        layout, num_tiles = self.layout, -(-num_rows // TILE_ROWS)
        data = random_bytes(num_tiles * layout.tile_bytes, seed)
        tiles = records(layout, data)
        # Codes of 0 to top, each as likely: a spread of sqrt((top² + 2 top) / 12) scales around top / 2.
        top = 2**layout.format.bits - 1
        scale = np.float16(self.std * (12 / (top * (top + 2))) ** 0.5)
        tiles[:, :, SCALES_OFFSET:BIASES_OFFSET].view(np.float16)[...] = scale
        tiles[:, :, BIASES_OFFSET:CODES_OFFSET].view(np.float16)[...] = np.float16(-scale * top / 2)
        if self.constant is not None:
            tiles[:, 0, SCALES_OFFSET:BIASES_OFFSET].view(np.float16)[...] = 0
            tiles[:, 0, BIASES_OFFSET:CODES_OFFSET].view(np.float16)[...] = self.constant
        tiles[: num_silent // TILE_ROWS] = 0
        _clear_rows_from(tiles, num_rows)
        return data

    def _rows(self, num_rows: int, num_silent: int, seed: tuple[int, ...]) -> Bytes:
        layout = self.layout
        levels = (np.arange(LEVELS, dtype=np.float32) - (LEVELS - 1) / 2) * np.float32(
            self.std * (12 / (LEVELS**2 - 1)) ** 0.5
        )
        table = narrow(levels, layout.format)
        rows = table[random_bytes(num_rows * layout.padded_cols, seed)].reshape(num_rows, layout.padded_cols)
        if self.constant is not None:
            rows[:, :RUN_COLUMNS] = narrow(np.array([self.constant], np.float32), layout.format)
        rows[:num_silent] = 0
        return rows.reshape(-1).view(np.uint8)


def random_bytes(nbytes: int, seed: Sequence[int]) -> Bytes:
    """Raw output of PCG64: 4 GB/s a core, where Generator.bytes gives 0.6."""
    return PCG64(list(seed)).random_raw(-(-nbytes // 8)).view(np.uint8)[:nbytes]


def float_bytes(values: NDArray[np.float32], layout: MatrixLayout) -> Bytes:
    """A float matrix of the given numbers."""
    padded = np.zeros((layout.rows, layout.padded_cols), STORED_DTYPES[layout.format])
    padded[:, : layout.cols] = narrow(values, layout.format)
    return padded.reshape(-1).view(np.uint8)


def _clear_rows_from(tiles: Bytes, num_rows: int) -> None:
    """Zero the lanes of the last tile that no row has."""
    used = num_rows % TILE_ROWS
    if used:
        last = tiles[-1]
        last[:, :CODES_OFFSET].view(np.float16).reshape(len(last), 2, TILE_ROWS)[:, :, used:] = 0
        last[:, CODES_OFFSET:].view(np.uint32).reshape(len(last), -1, TILE_ROWS)[:, :, used:] = 0
