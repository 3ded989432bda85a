"""Dense tensors of some sections of a model: as the checkpoint has them, and as they are packed."""

from collections.abc import Collection, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from edge.calibration.encoding import as_stored, calibrated_encoding, joined
from edge.calibration.errors import MatrixError, tensor_line
from edge.checkpoint.contents import Contents, DenseEntry
from edge.checkpoint.encode import encoding
from edge.checkpoint.in_order import in_order, num_threads
from edge.checkpoint.layout import MatrixLayout
from edge.checkpoint.matrix import Bytes, Floats, Matrix
from edge.checkpoint.names import DenseTensor, dense_tensors
from edge.checkpoint.source import Checkpoint, SourceMatrix
from edge.layers.weights import Tensor
from edge.quant.curvature import Curvature


class DenseWeights:
    """The tensors of some sections of a pack, by their names without `prefix`.

    `wanted`: all of them, unquantised. `given`: as the pack has them, the quantised ones from `pack` on.
    `lines`: the report on these. Raises: CheckpointError for what cannot be read or quantised.
    """

    def __init__(self, checkpoint: Checkpoint, contents: Contents, sections: Collection[str], prefix: str = "") -> None:
        self._checkpoint, self._prefix = checkpoint, prefix
        pairs = zip(dense_tensors(contents.config), contents.dense, strict=True)
        self._places = {
            tensor.name.removeprefix(prefix): (tensor, entry) for tensor, entry in pairs if tensor.section in sections
        }
        self.wanted: dict[str, Tensor] = {}
        self.given: dict[str, Tensor] = {}
        self.lines: list[dict[str, Any]] = []
        for name, (tensor, entry) in self._places.items():
            source = checkpoint.dense(tensor)
            if entry.layout is None:
                self.wanted[name] = _vector(source, tensor.shape)
            else:
                self.wanted[name] = as_stored(source)
            if entry.layout is None or not entry.layout.format.is_quantized:
                self.given[name] = self.wanted[name]

    def pack(self, name: str, curvature: Curvature) -> None:
        """Quantise one matrix for the inputs of `curvature`, on all cores."""
        tensor, layout = self._quantized(name)
        jobs = ((None, job) for job in calibrated_encoding(self._checkpoint.dense(tensor), layout, curvature))
        with closing(in_order(jobs, num_threads())) as pieces:
            encoded = [piece for _, piece in pieces]
        self.given[name] = joined(layout, (data for data, _ in encoded))
        error = sum((error for _, error in encoded), MatrixError())
        self.lines.append(tensor_line(tensor.name, layout.format.name, error))

    def pack_plainly(self) -> None:
        """Round to nearest what is not packed yet."""
        for name in self._places.keys() - self.given.keys():
            tensor, layout = self._quantized(name)
            self.given[name] = as_stored(self._checkpoint.dense(tensor), layout)

    def matrices(self, name: str) -> tuple[Matrix, Matrix]:
        """One matrix, unquantised and as packed."""
        return self._matrix(self.wanted, name), self._matrix(self.given, name)

    def num_columns(self, name: str) -> int:
        """Of a matrix, be it packed yet or not."""
        return self._matrix(self.wanted, name).layout.cols

    def vector(self, name: str) -> Floats:
        """One vector, the same in both."""
        tensor = self.wanted[name]
        if isinstance(tensor, Matrix):
            raise TypeError(f"{self._prefix}{name} is no vector")
        return tensor

    def stored(self) -> Iterator[tuple[DenseEntry, Bytes]]:
        """Each tensor's place and its bytes."""
        for name, (_, entry) in self._places.items():
            tensor = self.given[name]
            yield entry, tensor.data if isinstance(tensor, Matrix) else tensor.reshape(-1).view(np.uint8)

    def _matrix(self, tensors: dict[str, Tensor], name: str) -> Matrix:
        tensor = tensors[name]
        if not isinstance(tensor, Matrix):
            raise TypeError(f"{self._prefix}{name} is no matrix")
        return tensor

    def _quantized(self, name: str) -> tuple[DenseTensor, MatrixLayout]:
        tensor, entry = self._places[name]
        if entry.layout is None or not entry.layout.format.is_quantized:
            raise ValueError(f"{self._prefix}{name} is not quantised")
        return tensor, entry.layout


def _vector(source: SourceMatrix, shape: tuple[int, ...]) -> Floats:
    (job,) = encoding(source, None)
    return job().view(np.float32).reshape(shape)
