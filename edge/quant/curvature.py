"""What an error of each weight costs, by the inputs that a matrix meets: the Hessian of its output's squared error."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.errors import CalibrationError

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

# Of the mean of the diagonal, added to it, as GPTQ has it (arXiv 2210.17323, section 3.3): inputs that the calibration
# did not see cost something too, and what is factorised has no zero on its diagonal.
DAMPING = 0.01
LEAST_INPUT = 1e-20  # mean square of an input that the calibration never saw
SOLVED_COLUMNS = 256  # at once
MORE_DAMPING = 10  # times as much, when float32 finds the matrix indefinite all the same


@dataclass(slots=True)
class Moments:
    """Sums over tokens of x xᵀ, x being what a matrix of n columns is given.

    `given` [n, n]: of the inputs that the packed model gives it. `wanted` [n, n]: sums of (input of the unquantised
    model) (input of the packed model)ᵀ. `num_tokens`: of how many; a part of a token counts as that part.
    """

    given: Floats
    wanted: Floats
    num_tokens: float

    @classmethod
    def of(cls, given: Floats, wanted: Floats) -> Self:
        """Of some tokens. Shapes: [T, n] both."""
        with np.errstate(over="ignore", invalid="ignore"):  # Curvature refuses what is not finite
            return cls(given.T @ given, wanted.T @ given, len(given))

    def add(self, other: "Moments", share: float = 1.0) -> None:
        """Of the other's tokens too, each as `share` of one."""
        self.given += np.float32(share) * other.given
        self.wanted += np.float32(share) * other.wanted
        self.num_tokens += share * other.num_tokens


class Curvature:
    """The damped Hessian H of one input and what follows from it, shared by all matrices that are given that input.

    A row's error e costs e H eᵀ. Immutable: may be used by several threads.
    """

    def __init__(self, moments: Moments) -> None:
        """Raises CalibrationError for inputs that were not finite."""
        if not (np.isfinite(moments.given).all() and np.isfinite(moments.wanted).all()):
            raise CalibrationError("on the calibration text the model computes numbers that are infinite or none")
        self._moments = moments
        self._damping = DAMPING * max(float(np.diagonal(moments.given).mean()), LEAST_INPUT)
        self.hessian = _damped(moments.given, self._damping)

    def target(self, values: Floats) -> Floats:
        """The matrix that, on what the packed model gives it, comes nearest to `values` on what it should be given.

        Shapes: both [R, n]. Minimises ‖W X - V X'‖² + damping ‖W - V‖² over V, in closed form: errors of everything
        before this matrix are made good where its own inputs can tell them.
        """
        pulled = values @ (self._moments.wanted - self._moments.given)
        return values + self._solve(pulled.T).T

    def cost(self, errors: Floats) -> Floats:
        """e H eᵀ of each row of errors [R, n]."""
        costs: Floats = np.einsum("rn,rn->r", errors @ self.hessian, errors)
        return costs

    def output_error(self, values: Floats, stored: Floats) -> tuple[float, float]:
        """Squared norms over the calibration of what storing changes in the output, and of the output."""
        errors, given = values - stored, self._moments.given
        return float(((errors @ given) * errors).sum()), float(((values @ given) * values).sum())

    @cached_property
    def order(self) -> Indices:
        """Columns, the ones with the greatest inputs first: later ones make good what those could not say."""
        return np.argsort(-np.diagonal(self.hessian), kind="stable")

    @cached_property
    def feedback(self) -> Floats:
        """Strictly upper triangular F [n, n], in `order`: column k is rounded after adding earlier errors e times F.

        H = (F + I) D (F + I)ᵀ. This is GPTQ's update without an inverse: LDLQ, arXiv 2307.13304, theorem 6.
        """
        return np.triu(self._upper / np.diagonal(self._upper), 1)

    def _solve(self, right: Floats) -> Floats:
        """x of H x = right [n, R], by the factor that is there anyway: two triangular systems, block by block."""
        upper, x = self._upper, right[self.order]
        parts = [slice(start, start + SOLVED_COLUMNS) for start in range(0, len(x), SOLVED_COLUMNS)]
        for part in reversed(parts):
            x[part] = np.linalg.solve(upper[part, part], x[part] - upper[part, part.stop :] @ x[part.stop :])
        for part in parts:
            x[part] = np.linalg.solve(upper[part, part].T, x[part] - upper[: part.start, part].T @ x[: part.start])
        solved = np.empty_like(x)
        solved[self.order] = x
        return solved

    @cached_property
    def _upper(self) -> Floats:
        """Upper triangular U [n, n] with U Uᵀ = H, in `order`."""
        damping = self._damping
        while True:
            hessian = _damped(self._moments.given, damping)[np.ix_(self.order, self.order)]
            try:
                lower = np.linalg.cholesky(hessian[::-1, ::-1])
            except np.linalg.LinAlgError:
                damping *= MORE_DAMPING
            else:
                return np.ascontiguousarray(lower[::-1, ::-1])


def _damped(hessian: Floats, damping: float) -> Floats:
    return hessian + np.diag(np.full(len(hessian), damping, np.float32))
