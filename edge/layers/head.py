"""An output head that does not stay in RAM: it passes through the slots of a stream, some rows at a time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge import kernels
from edge.checkpoint.matrix import Matrix
from edge.dense_stream import DenseStream


class StreamedHead:
    """Blocks of rows, each a part of the stream that follows the layers. A row's product depends on that row alone."""

    def __init__(self, stream: DenseStream, parts: Sequence[int]) -> None:
        """`parts` of the stream in the order of the rows, each of one matrix."""
        self._stream = stream
        self._blocks = [(part, self._in_slots(part)) for part in parts]
        self._num_rows = sum(in_slots[0].layout.rows for _, in_slots in self._blocks)

    def _in_slots(self, part: int) -> list[Matrix]:
        return [next(iter(self._stream.matrices(part, slot).values())) for slot in range(self._stream.num_slots)]

    def forward(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """f32[T, H] to f32[T, vocab]. Raises StorageError."""
        out, end = np.empty((len(x), self._num_rows), np.float32), 0
        for part, in_slots in self._blocks:
            with self._stream.hold(part) as slot:
                start, end = end, end + in_slots[slot].layout.rows
                out[:, start:end] = kernels.matmul(x, in_slots[slot])
        return out
