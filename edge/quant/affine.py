"""Group-wise affine quantisation, round to nearest: value ≈ scale * code + bias, one scale and bias per group of a row.

The bias is rounded down and the scale up to what fp16 holds, so that no value falls outside the codes: the error is at
most half a scale whatever the values. In the same format with a view to what weights are multiplied with: calibrated.py
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import Format, round_up

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]

HALF_MAX = np.float32(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class Quantized:
    """Codes uint8 [rows, padded cols], one per byte, zero in padding columns; scales and biases fp16 [rows, groups]."""

    codes: NDArray[np.uint8]
    scales: Halves
    biases: Halves


def quantize(values: Floats, form: Format, group: int) -> Quantized:
    """Quantise [rows, cols], C-contiguous; a last group may be ragged.

    Raises: ValueError for values that are NaN, infinite or beyond what a fp16 scale and bias can say.
    """
    rows, cols = values.shape
    top = 2**form.bits - 1
    lowest, highest = _extremes(values, group)
    biases = _round_down(np.minimum(lowest, HALF_MAX))
    reach = highest - biases.astype(np.float32)
    scales = _round_up(_within_half(reach / np.float32(top)))
    codes = np.zeros((rows, round_up(cols, group)), np.float32)
    codes[:, :cols] = values
    by_group = codes.reshape(rows, -1, group)
    by_group -= biases.astype(np.float32)[:, :, None]
    by_group *= _inverse(scales)[:, :, None]
    codes[:, cols:] = 0
    return Quantized(np.rint(codes, out=codes).astype(np.uint8), scales, biases)


def _extremes(values: Floats, group: int) -> tuple[Floats, Floats]:
    """Least and greatest of each group: [rows, groups] each. reduceat is three times as fast here as min(axis)."""
    rows, cols = values.shape
    starts = (np.arange(rows)[:, None] * cols + np.arange(0, cols, group)).reshape(-1)
    flat = values.reshape(-1)
    lowest: Floats = np.minimum.reduceat(flat, starts).reshape(rows, -1)
    highest: Floats = np.maximum.reduceat(flat, starts).reshape(rows, -1)
    if not (np.isfinite(lowest).all() and np.isfinite(highest).all()):
        raise ValueError("holds NaN or infinite values")
    if lowest.min() < -HALF_MAX:
        raise ValueError(f"holds {lowest.min()}, below the {-HALF_MAX} that a fp16 bias can say; use --bits 16")
    return lowest, highest


def _within_half(scales: Floats) -> Floats:
    if scales.max() > HALF_MAX:
        raise ValueError(f"needs a scale of {scales.max()}, above the {HALF_MAX} that fp16 can say; use --bits 16")
    return scales


def _round_down(values: Floats) -> Halves:
    halves = values.astype(np.float16)
    return np.nextafter(halves, np.float16(-np.inf), out=halves, where=halves > values)


def _round_up(values: Floats) -> Halves:
    halves = values.astype(np.float16)
    return np.nextafter(halves, np.float16(np.inf), out=halves, where=halves < values)


def _inverse(scales: Halves) -> Floats:
    """0 where the scale is 0: all values of such a group equal its bias, their code is 0."""
    wide = scales.astype(np.float32)
    return np.divide(np.float32(1), wide, out=np.zeros_like(wide), where=wide > 0)
