"""From a checkpoint's rows to a pack's bytes, some rows at a time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import BIASES_OFFSET, CODES_OFFSET, SCALES_OFFSET, TILE_ROWS, Format, MatrixLayout
from edge.checkpoint.matrix import Bytes, Floats, Halves
from edge.checkpoint.source import SourceMatrix
from edge.errors import CheckpointError
from edge.quant.affine import Quantized, quantize
from edge.quant.floats import STORED_DTYPES, is_finite, widen
from edge.quant.planes import pack_tiles

BLOCK_ELEMENTS = 2**18  # 1 MB of float32: a block and its intermediates stay in the second-level cache
JOB_BLOCKS = 4  # so that threads hand over work some hundred times a second and not thousands


def encoding(source: SourceMatrix, layout: MatrixLayout | None) -> Iterator[Callable[[], Bytes]]:
    """Jobs that make the bytes of `source` as `layout` stores it, each some rows; in order they are all of it.

    Without a layout: float32. Jobs may run in several threads.
    They raise: CheckpointError naming the tensor if it cannot be read, is not finite or is beyond the format's range.
    """
    if layout is None:  # a vector, whole: it is small
        yield partial(_vector_bytes, source)
        return
    rows_at_once = max(1, BLOCK_ELEMENTS // source.cols // TILE_ROWS) * TILE_ROWS
    for start in range(0, source.rows, JOB_BLOCKS * rows_at_once):
        stop = min(start + JOB_BLOCKS * rows_at_once, source.rows)
        yield partial(_encode_rows, source, layout, start, stop, rows_at_once)


def tile_bytes(values: Floats, layout: MatrixLayout) -> Bytes:
    """Rows as tiles, rounded to nearest. Raises ValueError as quantize."""
    return quantized_bytes(quantize(values, layout.format, layout.group), layout)


def quantized_bytes(quantized: Quantized, layout: MatrixLayout) -> Bytes:
    """Rows as tiles, the last one filled up with rows of zeros."""
    codes, scales = _whole_tiles(quantized.codes), _whole_tiles(quantized.scales)
    biases = _whole_tiles(quantized.biases)
    records = np.empty((len(codes) // TILE_ROWS, layout.num_groups, layout.record_bytes), np.uint8)
    records[:, :, SCALES_OFFSET:BIASES_OFFSET].view(np.float16)[...] = _by_tile(scales)
    records[:, :, BIASES_OFFSET:CODES_OFFSET].view(np.float16)[...] = _by_tile(biases)
    vectors = pack_tiles(codes, layout.format, layout.group)
    records[:, :, CODES_OFFSET:] = vectors.reshape(*records.shape[:2], -1).view(np.uint8)
    return records.reshape(-1)


def _whole_tiles(rows: NDArray[Any]) -> NDArray[Any]:
    short = -len(rows) % TILE_ROWS
    return np.concatenate([rows, np.zeros((short, rows.shape[1]), rows.dtype)]) if short else rows


def _by_tile(halves: Halves) -> Halves:
    """[rows, groups] to [tiles, groups, 16]."""
    return halves.reshape(-1, TILE_ROWS, halves.shape[1]).transpose(0, 2, 1)


def _encode_rows(source: SourceMatrix, layout: MatrixLayout, start: int, stop: int, rows_at_once: int) -> Bytes:
    try:
        blocks = [
            _encode_block(source.read(first, min(rows_at_once, stop - first)), source.form, layout)
            for first in range(start, stop, rows_at_once)
        ]
    except ValueError as error:
        raise CheckpointError(f"{source.file.path}: {source.name} {error}") from error
    if stop == source.rows and not layout.format.is_quantized:
        blocks.append(np.zeros(layout.nbytes - layout.rows * layout.row_bytes, np.uint8))
    return np.concatenate(blocks)


def _encode_block(stored: NDArray[Any], form: Format, layout: MatrixLayout) -> Bytes:
    if layout.format.is_quantized:
        return tile_bytes(widen(stored, form), layout)
    _check_finite(stored, form)
    padded = np.zeros((len(stored), layout.padded_cols), STORED_DTYPES[layout.format])
    padded[:, : layout.cols] = stored if form is layout.format else widen(stored, form)
    return padded.view(np.uint8).reshape(-1)


def _vector_bytes(source: SourceMatrix) -> Bytes:
    stored = source.read(0, source.rows)
    try:
        _check_finite(stored, source.form)
    except ValueError as error:
        raise CheckpointError(f"{source.file.path}: {source.name} {error}") from error
    return widen(stored, source.form).reshape(-1).view(np.uint8)


def _check_finite(stored: NDArray[Any], form: Format) -> None:
    if not is_finite(stored, form):
        raise ValueError("holds NaN or infinite values")
