"""Elementwise functions of the layers, f32 in and out; each element's result depends on that element alone."""

import numpy as np
from numpy.typing import NDArray


def sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x))."""
    # exp(-x) overflows to infinity below -88, which is right: the quotient is then 0.
    with np.errstate(over="ignore"):
        out = np.exp(-x)
    out += 1
    return np.reciprocal(out, out=out)


def softplus(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """log(1 + exp(x))."""
    with np.errstate(invalid="ignore"):  # NaN passes through: it is met, once, at the logits
        out: NDArray[np.float32] = np.logaddexp(x, np.float32(0))
    return out
