"""Moments of all calibration tokens, on all cores."""

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edge.calibration.streams import blocks
from edge.checkpoint.in_order import in_order, num_threads
from edge.quant.curvature import Moments

Floats = NDArray[np.float32]
Inputs = Callable[[slice], tuple[Floats, Floats]]  # rows to what the packed model gives there, and the unquantised one


def gathered(num_tokens: int, inputs: Inputs) -> Moments:
    """Of all tokens, each counted once. The same sums on any number of threads: blocks are added in their order."""
    with closing(in_order(_jobs(num_tokens, inputs), num_threads())) as parts:
        _, total = next(parts)
        for _, part in parts:
            total.add(part)
    return total


def _jobs(num_tokens: int, inputs: Inputs) -> Iterator[tuple[None, Callable[[], Moments]]]:
    for rows in blocks(num_tokens):
        yield None, partial(_moments, inputs, rows)


def _moments(inputs: Inputs, rows: slice) -> Moments:
    given, wanted = inputs(rows)
    return Moments.of(np.asarray(given), np.asarray(wanted))
