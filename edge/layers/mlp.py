"""The gated MLP: whole feed-forward part of a dense model's layer, and the expert that all tokens share."""

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.checkpoint.matrix import Matrix
from edge.layers.weights import Weights


class GatedMlp:
    """down(silu(gate x) * up x), times sigmoid(scale x) if there is a `scale`."""

    def __init__(self, width: int, size: int, weights: Weights, scale: Matrix | None = None) -> None:
        """`scale` is [1, width]."""
        self._mlp = kernels.GatedMlp(
            weights.matrix("gate_proj", size, width),
            weights.matrix("up_proj", size, width),
            weights.matrix("down_proj", width, size),
            scale,
        )

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """f32[T, H] to f32[T, H]."""
        return self._mlp(x)
