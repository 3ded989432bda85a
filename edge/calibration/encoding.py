"""Matrices of a checkpoint to the bytes of a pack, some rows at a time, with a view to their inputs."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge.calibration.errors import MatrixError
from edge.checkpoint.encode import encoding, quantized_bytes
from edge.checkpoint.layout import TILE_ROWS, MatrixLayout
from edge.checkpoint.matrix import Bytes, Matrix, aligned_zeros
from edge.checkpoint.source import SourceMatrix
from edge.errors import CheckpointError
from edge.quant.calibrated import dequantized, quantize_calibrated
from edge.quant.curvature import Curvature
from edge.quant.floats import widen

Floats = NDArray[np.float32]

JOB_ELEMENTS = 2**22  # 16 MB of float32, of which calibration needs some ten at a time


def calibrated_encoding(
    source: SourceMatrix, layout: MatrixLayout, curvature: Curvature
) -> Iterator[Callable[[], tuple[Bytes, MatrixError]]]:
    """Jobs that make the bytes of `source` as the quantised `layout` stores it, each some rows; in order, all of it.

    Jobs may run in several threads. They raise: CheckpointError as those of `encoding`.
    """
    rows_at_once = max(1, JOB_ELEMENTS // source.cols // TILE_ROWS) * TILE_ROWS
    for start in range(0, source.rows, rows_at_once):
        yield partial(_encode, source, layout, curvature, start, min(rows_at_once, source.rows - start))


def as_stored(source: SourceMatrix, layout: MatrixLayout | None = None) -> Matrix:
    """The matrix without calibration, by default in the checkpoint's own precision. Raises as `encoding`."""
    layout = layout or MatrixLayout(source.form, source.rows, source.cols)
    return joined(layout, (job() for job in encoding(source, layout)))


def joined(layout: MatrixLayout, pieces: Iterable[Bytes]) -> Matrix:
    """A matrix of the bytes of its rows."""
    data, end = aligned_zeros(layout.nbytes), 0
    for piece in pieces:
        begin, end = end, end + len(piece)
        data[begin:end] = piece
    return Matrix(layout, data)


def _encode(
    source: SourceMatrix, layout: MatrixLayout, curvature: Curvature, start: int, count: int
) -> tuple[Bytes, MatrixError]:
    values = widen(source.read(start, count), source.form)
    try:
        quantized = quantize_calibrated(values, layout.format, layout.group, curvature)
    except ValueError as error:
        raise CheckpointError(f"{source.file.path}: {source.name} {error}") from error
    lost = MatrixError.of(values, dequantized(quantized, source.cols), curvature)
    return quantized_bytes(quantized, layout), lost
