"""Rotary position embedding over the first dimensions of each head, rotate-half form.

For text the three position grids of mrope are equal, so that it is the plain rotation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosines and sines of some positions, f32[T, 1, rotary_dim / 2]."""

    cos: NDArray[np.float32]
    sin: NDArray[np.float32]

    @classmethod
    def at(cls, config: ModelConfig, positions: NDArray[np.int64]) -> "Rotation":
        """The rotation of tokens at the given positions of their sequences."""
        exponents = np.arange(0, config.rotary_dim, 2, dtype=np.float32) / np.float32(config.rotary_dim)
        frequencies = (1.0 / np.float64(config.rope_theta) ** exponents).astype(np.float32)
        # The product in f32 as transformers has it; its cosine in f64, which is exact for any angle.
        angles = (positions.astype(np.float32)[:, None] * frequencies).astype(np.float64)[:, None, :]
        return cls(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))

    def apply(self, x: NDArray[np.float32]) -> None:
        """Rotate f32[T, heads, D] in place."""
        half = self.cos.shape[-1]
        first, second = x[..., :half], x[..., half : 2 * half]
        rotated = first * self.cos - second * self.sin
        second *= self.cos
        second += first * self.sin
        first[...] = rotated
