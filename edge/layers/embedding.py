"""Token ids to the first values of the residual stream."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.matrix import Matrix, dequantize_rows


def embed(embeddings: Matrix, ids: Sequence[int]) -> NDArray[np.float32]:
    """f32[T, H]; only the rows asked for are unpacked."""
    return np.ascontiguousarray(dequantize_rows(embeddings, ids))
