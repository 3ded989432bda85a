"""From a checkpoint's rows to a pack's bytes, a block of rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.contents import DenseEntry
from edge.checkpoint.layout import Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, biases, scales, stored_rows
from edge.checkpoint.source import SourceMatrix
from edge.errors import CheckpointError
from edge.quant.affine import Quantized, quantize
from edge.quant.floats import STORED_DTYPES, is_finite, widen

BLOCK_ELEMENTS = 2**18  # 1 MB of float32: a block and its intermediates stay in the second-level cache

Halves = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows start to start + len(codes) of a stored matrix. `quantized` is None for floats."""

    start: int
    codes: NDArray[np.uint8]  # [rows, row_bytes]
    quantized: Quantized | None


def encode(source: SourceMatrix, layout: MatrixLayout) -> Iterator[RowBlock]:
    """All rows of `source` as `layout` stores them.

    Raises: CheckpointError naming the tensor if it cannot be read, is not finite or is beyond the format's range.
    """
    rows_at_once = max(1, BLOCK_ELEMENTS // source.cols)
    for start in range(0, source.rows, rows_at_once):
        stored = source.read(start, min(rows_at_once, source.rows - start))
        try:
            yield _encode_block(start, stored, source.form, layout)
        except ValueError as error:
            raise CheckpointError(f"{source.file.path}: {source.name} {error}") from error


def write_expert_part(source: SourceMatrix, matrix: Matrix) -> None:
    """Fill a matrix in memory. Its padding must be zero already. Raises as encode."""
    for block in encode(source, matrix.layout):
        rows = slice(block.start, block.start + len(block.codes))
        stored_rows(matrix)[rows] = block.codes
        if block.quantized:
            scales(matrix)[rows] = block.quantized.scales
            biases(matrix)[rows] = block.quantized.biases


def write_dense(source: SourceMatrix, entry: DenseEntry, file: BinaryIO) -> None:
    """Write a tensor to its place in the file, whose gaps must read as zero. Raises as encode; OSError."""
    if entry.layout is None:
        _write_at(file, entry.offset, widen(_finite(source), source.form))
        return
    layout, start = entry.layout, entry.offset
    for block in encode(source, layout):
        _write_at(file, start + layout.codes_offset + block.start * layout.row_bytes, block.codes)
        if block.quantized:
            skipped = block.start * layout.num_groups * 2
            _write_at(file, start + layout.scales_offset + skipped, block.quantized.scales)
            _write_at(file, start + layout.biases_offset + skipped, block.quantized.biases)


def _encode_block(start: int, stored: NDArray[Any], form: Format, layout: MatrixLayout) -> RowBlock:
    if layout.format.is_quantized:
        quantized = quantize(widen(stored, form), layout.format, layout.group)
        return RowBlock(start, quantized.codes, quantized)
    if not is_finite(stored, form):
        raise ValueError("holds NaN or infinite values")
    padded = np.zeros((len(stored), layout.padded_cols), STORED_DTYPES[layout.format])
    padded[:, : layout.cols] = stored if form is layout.format else widen(stored, form)
    return RowBlock(start, padded.view(np.uint8), None)


def _finite(source: SourceMatrix) -> NDArray[Any]:
    """A vector, whole: it is small."""
    stored = source.read(0, source.rows)
    if not is_finite(stored, source.form):
        raise CheckpointError(f"{source.file.path}: {source.name} holds NaN or infinite values")
    return stored


def _write_at(file: BinaryIO, offset: int, data: NDArray[Any]) -> None:
    file.seek(offset)
    file.write(np.ascontiguousarray(data).data)
