"""The values that the codes of a group can say, chosen for calibrated weights. Transposed: columns first, rows last."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import Format
from edge.quant.affine import Quantized

Floats = NDArray[np.float32]

# Shares of a group's range that are tried. At 2 bits the best uniform grid for normal numbers reaches 1.5 standard
# deviations, half of what the extremes of 64 of them do.
SHRINKING = np.linspace(1, 0.4, 25, dtype=np.float32)


@dataclass(slots=True)
class Grid:
    """Scales and biases f32 [G, R] (each a fp16 number) of R rows in groups of `group` columns; codes up to `top`."""

    scales: Floats
    biases: Floats
    group: int
    top: int

    @classmethod
    def of(cls, quantized: Quantized, form: Format, group: int) -> "Grid":
        """The one that quantised values have."""
        scales, biases = (half.T.astype(np.float32) for half in (quantized.scales, quantized.biases))
        return cls(np.ascontiguousarray(scales), np.ascontiguousarray(biases), group, 2**form.bits - 1)

    def columns(self, index: int, num_columns: int) -> slice:
        """Those of group `index`; the last may have fewer."""
        return slice(index * self.group, min((index + 1) * self.group, num_columns))

    def round(self, index: int, values: Floats) -> Floats:
        """The codes nearest to values [..., R] of columns of group `index`, as whole floats."""
        codes: Floats = np.rint((values - self.biases[index]) * inverse(self.scales[index]))
        return np.clip(codes, 0, self.top, out=codes)

    def say(self, index: int, codes: Floats) -> Floats:
        """What codes [..., R] of columns of group `index` stand for."""
        values: Floats = codes * self.scales[index] + self.biases[index]
        return values


def clipped(values: Floats, importance: Floats, start: Grid) -> Grid:
    """For each group the share of its range, around its centre, that costs least when rounded to nearest.

    Shapes: values [n, R]; importance [n], the cost of each column's squared error.
    """
    best = Grid(start.scales.copy(), start.biases.copy(), start.group, start.top)
    for index in range(len(start.scales)):
        columns = start.columns(index, len(values))
        part, weights = values[columns], importance[columns]
        lowest, reach = start.biases[index], start.scales[index] * start.top
        least = np.full(part.shape[1], np.inf, np.float32)
        for share in SHRINKING:
            tried = Grid(
                _half(reach * (share / start.top))[None], _half(lowest + reach * (1 - share) / 2)[None], *_kind(start)
            )
            errors = part - tried.say(0, tried.round(0, part))
            cost = weights @ (errors * errors)
            better = cost < least
            least[better] = cost[better]
            best.scales[index, better] = tried.scales[0, better]
            best.biases[index, better] = tried.biases[0, better]
    return best


def _kind(grid: Grid) -> tuple[int, int]:
    return grid.group, grid.top


def inverse(scales: Floats) -> Floats:
    """0 where a scale is 0: all codes of such a group are 0."""
    return np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)


def _half(values: Floats) -> Floats:
    """Rounded to what fp16 holds."""
    return values.astype(np.float16).astype(np.float32)
