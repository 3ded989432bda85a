"""The gated MLP: whole feed-forward part of a dense model's layer, and the expert that all tokens share."""

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.layers.weights import Weights


class GatedMlp:
    """down(silu(gate x) * up x)."""

    def __init__(self, width: int, size: int, weights: Weights) -> None:
        self._gate_proj = weights.matrix("gate_proj", size, width)
        self._up_proj = weights.matrix("up_proj", size, width)
        self._down_proj = weights.matrix("down_proj", width, size)

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """f32[T, H] to f32[T, H]."""
        gate, up = kernels.matmul(x, self._gate_proj), kernels.matmul(x, self._up_proj)
        return kernels.matmul(kernels.silu_mul(gate, up), self._down_proj)
