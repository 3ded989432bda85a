"""The dense weights of a model by their names, seen from one layer's place in the tree."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.matrix import Matrix
from edge.errors import PackError

Tensor = Matrix | NDArray[np.float32]


class Weights:
    """Tensors under one prefix. Each is asked for with its shape: a pack that holds another one is refused."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        self._tensors = tensors
        self._prefix = prefix

    def under(self, name: str) -> "Weights":
        """The weights whose names go on with `name.`."""
        return Weights(self._tensors, f"{self._prefix}{name}.")

    def matrix(self, name: str, rows: int, cols: int) -> Matrix:
        """The [rows, cols] matrix `name`; raises PackError if it is absent or another shape."""
        tensor = self._find(name)
        if not isinstance(tensor, Matrix) or (tensor.layout.rows, tensor.layout.cols) != (rows, cols):
            raise PackError(f"tensor {self._prefix}{name} is {_describe(tensor)}; the config asks for [{rows}, {cols}]")
        return tensor

    def vector(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The plain f32 array `name`; raises PackError if it is absent or another shape."""
        tensor = self._find(name)
        if isinstance(tensor, Matrix) or tensor.shape != shape or tensor.dtype != np.float32:
            raise PackError(f"tensor {self._prefix}{name} is {_describe(tensor)}; the config asks for f32{list(shape)}")
        return np.ascontiguousarray(tensor)

    def _find(self, name: str) -> Tensor:
        try:
            return self._tensors[self._prefix + name]
        except KeyError:
            raise PackError(f"tensor {self._prefix}{name} is missing from the pack") from None


def _describe(tensor: Tensor) -> str:
    if isinstance(tensor, Matrix):
        return f"a {tensor.layout.format.name} matrix [{tensor.layout.rows}, {tensor.layout.cols}]"
    return f"{tensor.dtype} {list(tensor.shape)}"
