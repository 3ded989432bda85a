"""Repeatable random arrays and stored matrices, and how far a result may be from its formula."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.checkpoint.matrix import (
    Matrix,
    aligned_zeros,
    biases,
    codes,
    empty_matrix,
    expert_matrices,
    float_rows,
    scales,
)

Floats = NDArray[np.float32]

FLOATS = [form for form in Format if not form.is_quantized]
QUANTIZED = [form for form in Format if form.is_quantized]


def assert_close(found: ArrayLike, expected: ArrayLike, limit: float = 1e-6) -> None:
    """Relative L2 distance."""
    wide = np.asarray(expected, np.float64)
    assert np.asarray(found).shape == wide.shape
    assert np.linalg.norm(np.asarray(found, np.float64) - wide) <= limit * np.linalg.norm(wide)


class Random:
    """Repeatable arrays and matrices."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def floats(self, *shape: int) -> Floats:
        return self.rng.standard_normal(shape, np.float32)

    def fill(self, matrix: Matrix) -> Matrix:
        """Random weights of magnitude about 1/sqrt(cols), with zeros in the padding of float rows.

        What pads a quantised matrix is random too: no result may depend on it.
        """
        layout = matrix.layout
        if layout.format.is_quantized:
            codes(matrix)[...] = self.rng.integers(0, 256, codes(matrix).shape, np.uint8)
            top = 2**layout.format.bits - 1
            scales(matrix)[...] = self.rng.uniform(0.5, 1.5, scales(matrix).shape) * 4 / top / layout.cols**0.5
            biases(matrix)[...] = -scales(matrix) * top / 2
            return matrix
        stored, weights = float_rows(matrix), self.floats(layout.rows, layout.cols) / np.float32(layout.cols**0.5)
        if layout.format is Format.F32:
            stored.view(np.float32)[:, : layout.cols] = weights
        elif layout.format is Format.F16:
            stored.view(np.float16)[:, : layout.cols] = weights
        else:
            stored.view(np.uint16)[:, : layout.cols] = weights.view(np.uint32) >> 16
        return matrix

    def matrix(self, form: Format, rows: int, cols: int, group: int = 64) -> Matrix:
        return self.fill(empty_matrix(MatrixLayout(form, rows, cols, group if form.is_quantized else 0)))

    def expert(
        self, form: Format, size: int, hidden: int, group: int = 64, down: Format | None = None
    ) -> tuple[ExpertLayout, NDArray[np.uint8]]:
        """An expert of one format, or with another one for its down projection."""
        group = group if form.is_quantized else 0
        inner = MatrixLayout(form, size, hidden, group)
        layout = ExpertLayout(inner, inner, MatrixLayout(down or form, hidden, size, group))
        return layout, self.block(layout)

    def block(self, layout: ExpertLayout) -> NDArray[np.uint8]:
        block = aligned_zeros(layout.block_bytes, 4096)
        for matrix in expert_matrices(layout, block):
            self.fill(matrix)
        return block
