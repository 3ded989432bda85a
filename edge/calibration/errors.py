"""What storing a matrix in fewer bits did to it, and to what it yields on the calibration text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edge.quant.curvature import Curvature

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MatrixError:
    """Squared norms: of the changes of the output W X and of the weights W, and of both as they were."""

    output_change: float = 0.0
    output: float = 0.0
    weight_change: float = 0.0
    weight: float = 0.0

    @classmethod
    def of(cls, values: Floats, stored: Floats, curvature: Curvature) -> Self:
        """Of some rows [R, n]."""
        change = values - stored
        return cls(*curvature.output_error(values, stored), float((change * change).sum()), float((values**2).sum()))

    def __add__(self, other: "MatrixError") -> "MatrixError":
        return MatrixError(
            self.output_change + other.output_change,
            self.output + other.output,
            self.weight_change + other.weight_change,
            self.weight + other.weight,
        )

    @property
    def output_error(self) -> float:
        """‖W X - W' X‖ / ‖W X‖, 0 for an output of nothing but zeros."""
        return _ratio(self.output_change, self.output)

    @property
    def weight_error(self) -> float:
        """‖W - W'‖ / ‖W‖."""
        return _ratio(self.weight_change, self.weight)


def tensor_line(name: str, form: str, error: MatrixError) -> dict[str, Any]:
    """A line of the report for one tensor."""
    return {
        "tensor": name,
        "format": form,
        "output_error": round(error.output_error, 6),
        "weight_error": round(error.weight_error, 6),
    }


def experts_line(name: str, form: str, errors: Sequence[MatrixError], num_tokens: Sequence[int]) -> dict[str, Any]:
    """One for the same matrix of all experts of a layer; the errors are those of all together."""
    worst = max(range(len(errors)), key=lambda expert: errors[expert].output_error)
    return tensor_line(name, form, sum(errors, MatrixError())) | {
        "experts": len(errors),
        "worst_expert": worst,
        "worst_output_error": round(errors[worst].output_error, 6),
        "fewest_tokens": min(num_tokens),
    }


def worst_first(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """By the error of the output."""
    return sorted(lines, key=lambda line: -line["output_error"])


def _ratio(change: float, whole: float) -> float:
    return float(np.sqrt(max(change, 0.0) / whole)) if whole > 0 else 0.0
