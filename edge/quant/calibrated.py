"""Weights in fewer bits with a view to what they will be multiplied with."""

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import Format, round_up
from edge.quant.affine import Quantized, quantize
from edge.quant.curvature import Curvature
from edge.quant.descent import descend
from edge.quant.feedback import round_with_feedback
from edge.quant.grid import Grid, clipped

Floats = NDArray[np.float32]

SWEEPS = 2  # of coordinate descent; the gain of each is a fraction of the one before


def quantize_calibrated(values: Floats, form: Format, group: int, curvature: Curvature) -> Quantized:
    """Quantise [rows, cols] for the inputs of `curvature`; each row costs at most what rounding to nearest would.

    Raises: ValueError as `quantize`.
    """
    nearest = quantize(values, form, group)
    target = curvature.target(values)
    columns = np.ascontiguousarray(target.T)
    grid = clipped(columns, np.diagonal(curvature.hessian), Grid.of(nearest, form, group))
    codes = round_with_feedback(columns, grid, curvature)
    costs = descend(columns, codes, grid, curvature.hessian, SWEEPS)
    found = Quantized(_padded(codes, group), _halves(grid.scales), _halves(grid.biases))
    is_better = costs < curvature.cost(target - dequantized(nearest, values.shape[1]))
    return _chosen(is_better, found, nearest)


def dequantized(quantized: Quantized, cols: int) -> Floats:
    """The numbers that stand for the weights: [rows, cols]."""
    rows, groups = quantized.scales.shape
    values = quantized.codes.reshape(rows, groups, -1).astype(np.float32)
    values *= quantized.scales.astype(np.float32)[:, :, None]
    values += quantized.biases.astype(np.float32)[:, :, None]
    return np.ascontiguousarray(values.reshape(rows, -1)[:, :cols])


def _padded(codes: Floats, group: int) -> NDArray[np.uint8]:
    padded = np.zeros((codes.shape[1], round_up(len(codes), group)), np.uint8)
    padded[:, : len(codes)] = codes.T
    return padded


def _halves(values: Floats) -> NDArray[np.float16]:
    return np.ascontiguousarray(values.T.astype(np.float16))


def _chosen(first: NDArray[np.bool_], one: Quantized, other: Quantized) -> Quantized:
    """Row by row `one` where `first` says so."""
    pairs = ((one.codes, other.codes), (one.scales, other.scales), (one.biases, other.biases))
    codes, scales, biases = (np.where(first[:, None], a, b) for a, b in pairs)
    return Quantized(codes, scales, biases)
