"""A stored matrix in memory, and its numbers as float32. Offsets: edge/checkpoint/layout.py."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import CODE_COLUMNS, SECTION_ALIGNMENT, ExpertLayout, Format, MatrixLayout
from edge.quant.floats import STORED_DTYPES, widen

Bytes = NDArray[np.uint8]
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
        if data.ctypes.data % SECTION_ALIGNMENT:
            raise ValueError(f"matrix data at address {data.ctypes.data:#x}; must be a multiple of {SECTION_ALIGNMENT}")


def aligned_zeros(nbytes: int, alignment: int = SECTION_ALIGNMENT) -> Bytes:
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


def stored_rows(matrix: Matrix) -> Bytes:
    """The first section by rows: uint8 [rows, row_bytes], sharing memory."""
    layout = matrix.layout
    return matrix.data[: layout.rows * layout.row_bytes].reshape(layout.rows, layout.row_bytes)


def scales(matrix: Matrix) -> NDArray[np.float16]:
    """fp16 [rows, num_groups], sharing memory."""
    return _halves(matrix, matrix.layout.scales_offset)


def biases(matrix: Matrix) -> NDArray[np.float16]:
    """fp16 [rows, num_groups], sharing memory."""
    return _halves(matrix, matrix.layout.biases_offset)


def dequantize(matrix: Matrix) -> Floats:
    """The stored numbers: f32 [rows, cols]. A copy."""
    return dequantize_rows(matrix, slice(None))


def dequantize_rows(matrix: Matrix, rows: slice | Sequence[int] | NDArray[np.integer]) -> Floats:
    """Some rows of the stored numbers: f32 [len(rows), cols]. A copy; touches only those rows."""
    layout = matrix.layout
    stored = stored_rows(matrix)[rows]
    if not layout.format.is_quantized:
        return widen(stored.view(STORED_DTYPES[layout.format])[:, : layout.cols], layout.format)
    codes = _codes(stored, layout).reshape(len(stored), layout.num_groups, layout.group)
    values = codes.astype(np.float32)  # [R, G, group]
    values *= scales(matrix)[rows].astype(np.float32)[:, :, None]
    values += biases(matrix)[rows].astype(np.float32)[:, :, None]
    return np.ascontiguousarray(values.reshape(len(stored), layout.padded_cols)[:, : layout.cols])


def _codes(stored: Bytes, layout: MatrixLayout) -> Bytes:
    if layout.format is Format.Q8:
        return stored
    runs = stored.reshape(len(stored), -1, 1, CODE_COLUMNS // 2)  # [R, runs, 1, 16]
    return np.concatenate([runs & 15, runs >> 4], axis=2)


def _halves(matrix: Matrix, start: int) -> NDArray[np.float16]:
    layout = matrix.layout
    count = layout.rows * layout.num_groups
    return matrix.data[start : start + 2 * count].view(np.float16).reshape(layout.rows, layout.num_groups)
