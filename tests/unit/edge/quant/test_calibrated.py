"""Calibrated quantisation: against the optimum by brute force, against rounding to nearest, on awkward shapes."""

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.checkpoint.layout import Format
from edge.errors import CalibrationError
from edge.quant.affine import quantize
from edge.quant.calibrated import dequantized, quantize_calibrated
from edge.quant.curvature import Curvature, Moments
from edge.quant.descent import descend
from edge.quant.feedback import round_with_feedback
from edge.quant.grid import Grid

Floats = NDArray[np.float32]

QUANTIZED = [form for form in Format if form.is_quantized]


def inputs(num_tokens: int, num_columns: int, seed: int = 0) -> Floats:
    """Correlated, of very unequal size, as activations are."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((num_columns, num_columns)) * np.exp(-np.arange(num_columns) / 8)
    return (rng.standard_normal((num_tokens, num_columns)) @ mixing.T).astype(np.float32)


def weights(num_rows: int, num_columns: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal((num_rows, num_columns)).astype(np.float32)


def curvature_of(x: Floats) -> Curvature:
    return Curvature(Moments.of(x, x))


def cost(values: Floats, form: Format, group: int, curvature: Curvature) -> Floats:
    quantized = quantize_calibrated(values, form, group, curvature)
    return curvature.cost(curvature.target(values) - dequantized(quantized, values.shape[1]))


@pytest.mark.parametrize("form", QUANTIZED)
@pytest.mark.parametrize(
    ("shape", "group"), [((1, 1), 64), ((3, 16), 64), ((17, 64), 64), ((5, 130), 64), ((2, 200), 128)]
)
def test_no_row_costs_more_than_rounding_to_nearest(form: Format, shape: tuple[int, int], group: int) -> None:
    values, curvature = weights(*shape), curvature_of(inputs(300, shape[1]))
    nearest = curvature.cost(values - dequantized(quantize(values, form, group), shape[1]))
    assert (cost(values, form, group, curvature) <= nearest * (1 + 1e-4)).all()


@pytest.mark.parametrize(("form", "share"), [(Format.Q2, 0.2), (Format.Q3, 0.25), (Format.Q4, 0.3)])
def test_correlated_inputs_let_errors_cancel(form: Format, share: float) -> None:
    values, curvature = weights(32, 130), curvature_of(inputs(500, 130))
    nearest = curvature.cost(values - dequantized(quantize(values, form, 64), 130))
    assert cost(values, form, 64, curvature).sum() <= share * nearest.sum()


@pytest.mark.parametrize("seed", range(4))
def test_codes_of_a_small_matrix_come_near_the_best_of_all(seed: int) -> None:
    """Every choice of 2-bit codes of 7 columns is tried, 4 ** 7 of them, with the scales that were found."""
    values, curvature = weights(3, 7, seed), curvature_of(inputs(40, 7, seed))
    quantized = quantize_calibrated(values, Format.Q2, 64, curvature)
    choices = np.array(list(product(range(4), repeat=7)), np.float32)
    scales, biases = quantized.scales.astype(np.float32), quantized.biases.astype(np.float32)
    best = np.array(
        [curvature.cost(v - (choices * s + b)).min() for v, s, b in zip(values, scales, biases, strict=True)]
    )
    found = curvature.cost(values - dequantized(quantized, 7))
    assert (found >= best * (1 - 1e-3)).all()
    assert found.sum() <= 1.5 * best.sum()


def test_feedback_is_the_update_of_the_paper() -> None:
    """GPTQ by its definition: an inverse of the remaining Hessian at every column (arXiv 2210.17323, equation 2)."""
    values, curvature = weights(4, 9).T.copy(), curvature_of(inputs(60, 9))
    grid = Grid.of(quantize(values.T.copy(), Format.Q3, 64), Format.Q3, 64)
    order = curvature.order
    remaining, hessian = values[order].astype(np.float64), curvature.hessian[np.ix_(order, order)].astype(np.float64)
    expected = np.empty_like(values)
    for place, column in enumerate(order):
        inverse = np.linalg.inv(hessian[place:, place:])
        expected[column] = grid.round(0, remaining[place].astype(np.float32))
        error = (remaining[place] - grid.say(0, expected[column])) / inverse[0, 0]
        remaining[place:] -= inverse[:, :1] * error
    np.testing.assert_array_equal(round_with_feedback(values, grid, curvature), expected)


@pytest.mark.parametrize("blocks", [1, 4, 200])
def test_how_many_columns_are_rounded_at_once_changes_no_code(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values, curvature = np.ascontiguousarray(weights(6, 70).T), curvature_of(inputs(200, 70))
    grid = Grid.of(quantize(values.T.copy(), Format.Q3, 64), Format.Q3, 64)
    expected = round_with_feedback(values, grid, curvature)
    monkeypatch.setattr("edge.quant.feedback.BLOCK_COLUMNS", blocks)
    assert (round_with_feedback(values, grid, curvature) != expected).mean() < 0.01  # but for ties that float32 decides


def test_descent_never_raises_the_cost() -> None:
    values, curvature = np.ascontiguousarray(weights(20, 130).T), curvature_of(inputs(300, 130))
    grid = Grid.of(quantize(values.T.copy(), Format.Q2, 64), Format.Q2, 64)
    codes = np.concatenate([grid.round(index, values[grid.columns(index, 130)]) for index in range(3)])
    before = np.full(20, np.inf, np.float32)
    for _ in range(4):
        stored = np.concatenate([grid.say(index, codes[grid.columns(index, 130)]) for index in range(3)])
        after = curvature.cost((values - stored).T)
        assert (after <= before * (1 + 1e-4)).all()
        before = after
        descend(values, codes, grid, curvature.hessian, 1)


def test_a_matrix_makes_good_what_its_inputs_lost() -> None:
    wanted = inputs(400, 30)
    given = wanted + 0.3 * inputs(400, 30, seed=5)
    values = weights(8, 30)
    curvature = Curvature(Moments.of(given, wanted))
    target = curvature.target(values)
    ridge = 0.01 * np.mean(np.diagonal(given.T @ given))
    exact = np.linalg.solve(  # of the two least-squares problems stacked: outputs, and staying near the weights
        np.float64(given.T @ given + ridge * np.eye(30)), np.float64((wanted @ values.T).T @ given + ridge * values).T
    ).T
    np.testing.assert_allclose(target, exact, rtol=2e-3, atol=2e-3)
    assert np.linalg.norm(given @ target.T - wanted @ values.T) < np.linalg.norm(given @ values.T - wanted @ values.T)


def test_same_inputs_ask_for_the_weights_themselves() -> None:
    values = weights(4, 12)
    np.testing.assert_array_equal(curvature_of(inputs(50, 12)).target(values), values)


def test_inputs_that_never_came_leave_rounding_to_nearest_or_better() -> None:
    nothing = np.zeros((5, 70), np.float32)
    values = weights(4, 70)
    quantized = quantize_calibrated(values, Format.Q4, 64, curvature_of(nothing))
    error = np.square(values - dequantized(quantized, 70)).sum()
    assert error <= np.square(values - dequantized(quantize(values, Format.Q4, 64), 70)).sum() * (1 + 1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_inputs_beyond_float32_are_refused(bad: float) -> None:
    x = inputs(30, 8)
    x[3, 2] = bad
    with pytest.raises(CalibrationError, match="numbers that are infinite or none"):
        curvature_of(x)


def test_two_columns_that_are_always_alike_are_no_obstacle() -> None:
    x = inputs(50, 20)
    x[:, 1] = x[:, 0]
    values = weights(4, 20)
    assert np.isfinite(dequantized(quantize_calibrated(values, Format.Q2, 64, curvature_of(x)), 20)).all()


@pytest.mark.parametrize("values", [np.full((2, 70), 3.25, np.float32), np.zeros((2, 70), np.float32)])
def test_constants_stay_exact(values: Floats) -> None:
    quantized = quantize_calibrated(values, Format.Q3, 64, curvature_of(inputs(40, 70)))
    np.testing.assert_array_equal(dequantized(quantized, 70), values)


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "NaN"), (np.inf, "NaN or infinite"), (-1e9, "below the -65504")])
def test_what_the_format_cannot_say_is_refused(bad: float, message: str) -> None:
    values = weights(3, 70)
    values[1, 66] = bad
    with pytest.raises(ValueError, match=message):
        quantize_calibrated(values, Format.Q4, 64, curvature_of(inputs(30, 70)))


def test_padding_columns_have_code_zero() -> None:
    quantized = quantize_calibrated(weights(3, 70) + 5, Format.Q4, 64, curvature_of(inputs(90, 70)))
    assert quantized.codes.shape == (3, 128)
    assert not quantized.codes[:, 70:].any()
