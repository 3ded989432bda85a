"""Codes, scales and biases made better one at a time until little is left to gain: coordinate descent.

With the others fixed, the best code of a column and the best scale and bias of a group have closed forms (for codes:
QuantEase, arXiv 2309.01885), so that the cost never rises but by what float32 rounds.
"""

import numpy as np
from numpy.typing import NDArray

from edge.quant.grid import Grid, inverse

Floats = NDArray[np.float32]

SINGULAR = np.float32(1e-4)  # of a determinant's first term: below, a group's codes hardly differ


def descend(values: Floats, codes: Floats, grid: Grid, hessian: Floats, sweeps: int) -> Floats:
    """Improve `codes` and `grid` in place; what each row costs then, [R].

    Shapes: values, codes [n, R], hessian [n, n].
    """
    pull = hessian @ (values - _stored(codes, grid))  # half the cost's downward slope
    for _ in range(sweeps):
        for index in range(len(grid.scales)):
            columns = grid.columns(index, len(values))
            within = hessian[columns, columns]
            local, before = pull[columns].copy(), grid.say(index, codes[columns])
            _refit(grid, index, codes[columns], local, within)
            _recode(grid, index, codes[columns], local, within)
            pull -= hessian[:, columns] @ (grid.say(index, codes[columns]) - before)
    costs: Floats = np.einsum("nr,nr->r", values - _stored(codes, grid), pull)
    return costs


def _stored(codes: Floats, grid: Grid) -> Floats:
    parts = (grid.say(index, codes[grid.columns(index, len(codes))]) for index in range(len(grid.scales)))
    return np.concatenate(list(parts))


def _refit(grid: Grid, index: int, codes: Floats, pull: Floats, within: Floats) -> None:
    """The best scale and bias of a group's codes [m, R], where they are better after rounding to fp16."""
    curved = within @ codes
    first, both, last = np.einsum("mr,mr->r", codes, curved), curved.sum(0), within.sum()
    of_scale, of_bias = np.einsum("mr,mr->r", codes, pull), pull.sum(0)
    determinant = first * last - both * both
    regular = determinant > SINGULAR * first * last
    divisor = np.where(regular, determinant, 1)
    scales = _half(grid.scales[index] + np.where(regular, (of_scale * last - of_bias * both) / divisor, 0))
    biases = _half(grid.biases[index] + np.where(regular, (of_bias * first - of_scale * both) / divisor, 0))
    change = codes * (scales - grid.scales[index]) + (biases - grid.biases[index])
    curved = within @ change
    gain = 2 * np.einsum("mr,mr->r", change, pull) - np.einsum("mr,mr->r", change, curved)
    better = (gain > 0) & (scales > 0) & np.isfinite(scales) & np.isfinite(biases)
    grid.scales[index] = np.where(better, scales, grid.scales[index])
    grid.biases[index] = np.where(better, biases, grid.biases[index])
    pull -= np.where(better, curved, 0)


def _recode(grid: Grid, index: int, codes: Floats, pull: Floats, within: Floats) -> None:
    """The best code of each column in turn. Shapes: codes, pull [m, R], within [m, m]."""
    scale, inverted = grid.scales[index], inverse(grid.scales[index])
    for column in range(len(codes)):
        step = pull[column] * (inverted / within[column, column])
        code = np.clip(np.rint(codes[column] + step), 0, grid.top)
        change = (code - codes[column]) * scale
        codes[column] = code
        pull -= within[:, column, None] * change


def _half(values: Floats) -> Floats:
    with np.errstate(over="ignore"):  # infinities are not taken
        return values.astype(np.float16).astype(np.float32)
