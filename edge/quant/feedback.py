"""Rounding column after column, each one making good the errors of those before it: GPTQ (arXiv 2210.17323)."""

import numpy as np
from numpy.typing import NDArray

from edge.quant.curvature import Curvature
from edge.quant.grid import Grid

Floats = NDArray[np.float32]

BLOCK_COLUMNS = 128  # are rounded one by one, before their errors go to all later columns in one product


def round_with_feedback(values: Floats, grid: Grid, curvature: Curvature) -> Floats:
    """Codes of values [n, R] as whole floats. Columns come in the order of `curvature`, groups keep their grids."""
    order, feedback = curvature.order, curvature.feedback
    codes, errors = np.empty_like(values), np.empty_like(values)  # errors in the order of rounding
    for begin in range(0, len(values), BLOCK_COLUMNS):
        end = min(begin + BLOCK_COLUMNS, len(values))
        added = feedback[:begin, begin:end].T @ errors[:begin]
        for place in range(begin, end):
            column = order[place]
            group = column // grid.group
            wanted = values[column] + added[place - begin] + feedback[begin:place, place] @ errors[begin:place]
            codes[column] = grid.round(group, wanted)
            errors[place] = values[column] - grid.say(group, codes[column])
    return codes
