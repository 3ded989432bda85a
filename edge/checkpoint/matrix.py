"""A stored matrix in memory, its parts as views, and its numbers as float32. Offsets: edge/checkpoint/layout.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import (
    BIASES_OFFSET,
    CODES_OFFSET,
    MATRIX_ALIGNMENT,
    SCALES_OFFSET,
    TILE_ROWS,
    ExpertLayout,
    MatrixLayout,
)
from edge.quant.floats import STORED_DTYPES, widen
from edge.quant.planes import unpack_lanes

Bytes = NDArray[np.uint8]
Halves = NDArray[np.float16]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Matrix:
    """`data` is uint8, 1-D, contiguous, 64-byte aligned, layout.nbytes long."""

    layout: MatrixLayout
    data: Bytes

    def __post_init__(self) -> None:
        data = self.data
        if data.dtype != np.uint8 or data.shape != (self.layout.nbytes,) or not data.flags.c_contiguous:
            raise ValueError(f"matrix data is {data.dtype}{list(data.shape)}; must be uint8[{self.layout.nbytes}]")
        if data.ctypes.data % MATRIX_ALIGNMENT:
            raise ValueError(f"matrix data at address {data.ctypes.data:#x}; must be a multiple of {MATRIX_ALIGNMENT}")


def aligned_zeros(nbytes: int, alignment: int = MATRIX_ALIGNMENT) -> Bytes:
    """`nbytes` zero bytes whose address is a multiple of `alignment`."""
    memory = np.zeros(nbytes + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    return memory[start : start + nbytes]


def empty_matrix(layout: MatrixLayout) -> Matrix:
    """A matrix of zero bytes."""
    return Matrix(layout, aligned_zeros(layout.nbytes))


def expert_matrices(layout: ExpertLayout, block: Bytes) -> tuple[Matrix, Matrix, Matrix]:
    """Gate, up and down of one expert's block, which they share memory with."""
    starts = (layout.gate_offset, layout.up_offset, layout.down_offset)
    parts = zip(starts, (layout.gate, layout.up, layout.down), strict=True)
    gate, up, down = (Matrix(part, block[start : start + part.nbytes]) for start, part in parts)
    return gate, up, down


def float_rows(matrix: Matrix) -> Bytes:
    """A float matrix by rows: uint8 [rows, row_bytes], sharing memory."""
    layout = matrix.layout
    return matrix.data[: layout.rows * layout.row_bytes].reshape(layout.rows, layout.row_bytes)


def records(layout: MatrixLayout, data: Bytes) -> Bytes:
    """Whole tiles of a quantised matrix by record: uint8 [tiles, num_groups, record_bytes], sharing memory."""
    return data.reshape(-1, layout.num_groups, layout.record_bytes)


def scales(matrix: Matrix) -> Halves:
    """fp16 [num_tiles, num_groups, 16], sharing memory; the last index is the row in the tile."""
    return records(matrix.layout, matrix.data)[:, :, SCALES_OFFSET:BIASES_OFFSET].view(np.float16)


def biases(matrix: Matrix) -> Halves:
    """As `scales`."""
    return records(matrix.layout, matrix.data)[:, :, BIASES_OFFSET:CODES_OFFSET].view(np.float16)


def codes(matrix: Matrix) -> Bytes:
    """Packed: uint8 [num_tiles, num_groups, codes_bytes], sharing memory."""
    return records(matrix.layout, matrix.data)[:, :, CODES_OFFSET:]


def dequantize(matrix: Matrix) -> Floats:
    """The stored numbers: f32 [rows, cols]. A copy."""
    return dequantize_rows(matrix, slice(None))


def dequantize_rows(matrix: Matrix, rows: slice | Sequence[int] | NDArray[np.integer]) -> Floats:
    """Some rows of the stored numbers: f32 [len(rows), cols]. A copy; touches only their tiles.

    Raises: IndexError for a row that is not there; negative ones count from the end.
    """
    layout = matrix.layout
    if not layout.format.is_quantized:
        stored = float_rows(matrix)[rows]
        return widen(stored.view(STORED_DTYPES[layout.format])[:, : layout.cols], layout.format)
    if isinstance(rows, slice):
        chosen = np.arange(layout.rows)[rows]
    else:  # a vocabulary's worth of numbers, for one row of it, would cost more than the row
        chosen = np.asarray(rows, np.int64)
        outside = (chosen < -layout.rows) | (chosen >= layout.rows)
        if outside.any():
            raise IndexError(f"row {chosen[outside][0]} of a matrix of {layout.rows}")
        chosen = chosen % layout.rows
    tiles, lanes = np.divmod(chosen, TILE_ROWS)
    words = codes(matrix).view(np.uint32).reshape(layout.num_tiles, layout.num_groups, -1, TILE_ROWS)
    values = unpack_lanes(words[tiles, :, :, lanes], layout.format).astype(np.float32)  # [R, G, group]
    values *= scales(matrix)[tiles, :, lanes].astype(np.float32)[:, :, None]
    values += biases(matrix)[tiles, :, lanes].astype(np.float32)[:, :, None]
    return np.ascontiguousarray(values.reshape(len(chosen), layout.padded_cols)[:, : layout.cols])
