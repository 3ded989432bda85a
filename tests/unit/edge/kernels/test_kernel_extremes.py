"""Very large and very small numbers give the limit of the formula, not a NaN; a NaN that comes in goes out."""

import numpy as np
import pytest
import torch

from edge import kernels
from tests.unit.edge.kernels.random_arrays import Random

pytestmark = pytest.mark.usefixtures("variant")

FAR = np.array([[-1e38, -200.0, -104.0, -88.5, -0.0, 0.0, 88.5, 200.0, 1e38]], np.float32)


def test_gates_saturate() -> None:
    ones = np.ones_like(FAR)
    sigmoid = kernels.sigmoid_mul(FAR, ones)
    np.testing.assert_allclose(sigmoid[0, [0, 1, 4, 5, 7, 8]], [0, 0, 0.5, 0.5, 1, 1])
    assert 0 < sigmoid[0, 3] < 1e-38
    np.testing.assert_allclose(kernels.silu_mul(FAR, ones)[0, [0, 1, 5, 7, 8]], [0, 0, 0, 200, 1e38])


def test_gates_of_the_delta_rule_are_those_of_torch_and_saturate() -> None:
    nothing, one = np.zeros(FAR.shape[1], np.float32), np.ones(FAR.shape[1], np.float32)
    g, beta = kernels.delta_gates(FAR, FAR, nothing, one)
    points = torch.from_numpy(FAR)
    np.testing.assert_allclose(g, torch.nn.functional.softplus(points).numpy(), rtol=1e-6, atol=1e-38)
    np.testing.assert_allclose(beta, torch.sigmoid(points).numpy(), rtol=1e-6, atol=1e-38)


def test_scaled_rows_saturate() -> None:
    x = np.ones((FAR.shape[1], 1), np.float32)
    kernels.scale_rows(FAR[0], x)
    np.testing.assert_allclose(x[:, 0], torch.sigmoid(torch.from_numpy(FAR[0])).numpy(), rtol=1e-6, atol=1e-38)


def test_routing_of_far_logits_is_finite() -> None:
    indices, weights = kernels.route(FAR, 2)
    np.testing.assert_array_equal(indices, [[0, 8]])
    np.testing.assert_array_equal(weights, [[0, 1]])


def test_routing_shows_a_nan_instead_of_passing_over_it() -> None:
    logits = np.array([[1, np.nan, 3, 4]], np.float32)
    indices, weights = kernels.route(logits, 2)
    assert set(indices[0].tolist()) < {0, 1, 2, 3}
    assert np.isnan(weights).any()


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e18])
def test_attention_is_an_average_of_the_values(factor: float, random: Random) -> None:
    q, k = random.floats(5, 4, 24) * np.float32(factor), random.floats(70, 2, 24)
    v = np.full((70, 2, 24), 7, np.float32)
    np.testing.assert_allclose(kernels.attention(q, k, v, 65), 7, rtol=1e-6)


def test_norms_of_nothing_are_nothing() -> None:
    zeros, weight = np.zeros((2, 20), np.float32), np.ones(20, np.float32)
    assert not kernels.rms_norm(zeros, weight, 1e-6, plus_one=False).any()
    assert not kernels.gated_rms_norm(zeros, zeros, weight, 1e-6).any()


def test_gated_delta_of_zero_keys_and_full_decay_forgets(random: Random) -> None:
    zeros = np.zeros((3, 1, 8), np.float32)
    state = random.floats(1, 8, 5)
    out = kernels.gated_delta(
        zeros, zeros, random.floats(3, 1, 5), np.full((3, 1), -1e30, np.float32), np.ones((3, 1), np.float32), state
    )
    assert not out.any()
    assert not state.any()


def test_a_nan_reaches_the_result(random: Random) -> None:
    x = random.floats(1, 20)
    x[0, 3] = np.nan
    assert np.isnan(kernels.silu_mul(x, x)[0, 3])
    assert np.isnan(kernels.delta_gates(x, x, x[0], x[0])).any(axis=(1, 2)).all()
    assert np.isnan(kernels.rms_norm(x, np.ones(20, np.float32), 1e-6, plus_one=False)).all()
