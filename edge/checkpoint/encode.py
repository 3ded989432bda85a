"""From a checkpoint's rows to a pack's bytes, a block of rows at a time."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.contents import DenseEntry
from edge.checkpoint.layout import BIASES_OFFSET, CODES_OFFSET, SCALES_OFFSET, TILE_ROWS, Format, MatrixLayout
from edge.checkpoint.matrix import Bytes, Floats, Halves, Matrix
from edge.checkpoint.source import SourceMatrix
from edge.errors import CheckpointError
from edge.quant.affine import quantize
from edge.quant.floats import STORED_DTYPES, is_finite, widen
from edge.quant.planes import pack_tiles

BLOCK_ELEMENTS = 2**18  # 1 MB of float32: a block and its intermediates stay in the second-level cache


def encode(source: SourceMatrix, layout: MatrixLayout) -> Iterator[Bytes]:
    """All of `source` as `layout` stores it, in pieces of some rows that follow each other; what is missing is padding.

    Raises: CheckpointError naming the tensor if it cannot be read, is not finite or is beyond the format's range.
    """
    rows_at_once = max(1, BLOCK_ELEMENTS // source.cols // TILE_ROWS) * TILE_ROWS
    for start in range(0, source.rows, rows_at_once):
        stored = source.read(start, min(rows_at_once, source.rows - start))
        try:
            yield _encode_block(stored, source.form, layout)
        except ValueError as error:
            raise CheckpointError(f"{source.file.path}: {source.name} {error}") from error


def write_expert_part(source: SourceMatrix, matrix: Matrix) -> None:
    """Fill a matrix in memory. Its padding must be zero already. Raises as encode."""
    end = 0
    for piece in encode(source, matrix.layout):
        start, end = end, end + len(piece)
        matrix.data[start:end] = piece


def write_dense(source: SourceMatrix, entry: DenseEntry, file: BinaryIO) -> None:
    """Write a tensor to its place in the file, whose gaps must read as zero. Raises as encode; OSError."""
    file.seek(entry.offset)
    if entry.layout is None:
        file.write(np.ascontiguousarray(widen(_finite(source), source.form)).data)
        return
    for piece in encode(source, entry.layout):
        file.write(piece.data)


def tile_bytes(values: Floats, layout: MatrixLayout) -> Bytes:
    """Rows as tiles, the last one filled up with rows of zeros. Raises ValueError as quantize."""
    if short := -len(values) % TILE_ROWS:
        values = np.concatenate([values, np.zeros((short, values.shape[1]), np.float32)])
    quantized = quantize(values, layout.format, layout.group)
    records = np.empty((len(values) // TILE_ROWS, layout.num_groups, layout.record_bytes), np.uint8)
    records[:, :, SCALES_OFFSET:BIASES_OFFSET].view(np.float16)[...] = _by_tile(quantized.scales)
    records[:, :, BIASES_OFFSET:CODES_OFFSET].view(np.float16)[...] = _by_tile(quantized.biases)
    vectors = pack_tiles(quantized.codes, layout.format, layout.group)
    records[:, :, CODES_OFFSET:] = vectors.reshape(*records.shape[:2], -1).view(np.uint8)
    return records.reshape(-1)


def _by_tile(halves: Halves) -> Halves:
    """[rows, groups] to [tiles, groups, 16]."""
    return halves.reshape(-1, TILE_ROWS, halves.shape[1]).transpose(0, 2, 1)


def _encode_block(stored: NDArray[Any], form: Format, layout: MatrixLayout) -> Bytes:
    if layout.format.is_quantized:
        return tile_bytes(widen(stored, form), layout)
    if not is_finite(stored, form):
        raise ValueError("holds NaN or infinite values")
    padded = np.zeros((len(stored), layout.padded_cols), STORED_DTYPES[layout.format])
    padded[:, : layout.cols] = stored if form is layout.format else widen(stored, form)
    return padded.view(np.uint8).reshape(-1)


def _finite(source: SourceMatrix) -> NDArray[Any]:
    """A vector, whole: it is small."""
    stored = source.read(0, source.rows)
    if not is_finite(stored, source.form):
        raise CheckpointError(f"{source.file.path}: {source.name} holds NaN or infinite values")
    return stored
