"""Each kernel equals its formula, in each instruction set, on sizes that fit no vector, block or task."""

from collections.abc import Callable

import numpy as np
import pytest

from edge import kernels, reference
from edge.checkpoint.layout import Format
from edge.checkpoint.matrix import aligned_zeros, expert_matrices
from tests.unit.edge.kernels.random_arrays import FLOATS, Random, assert_close

pytestmark = pytest.mark.usefixtures("variant")


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (5, 16), (37, 50), (131, 1100)])
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 53])
def test_matmul(form: Format, rows: int, cols: int, tokens: int, random: Random) -> None:
    w, x = random.matrix(form, rows, cols), random.floats(tokens, cols)
    assert_close(kernels.matmul(x, w), reference.matmul(x, w))


def test_matmul_of_no_tokens_is_empty(random: Random) -> None:
    assert kernels.matmul(random.floats(0, 20), random.matrix(Format.F32, 7, 20)).shape == (0, 7)


@pytest.mark.parametrize("form", [Format.F32, Format.F16])
def test_matmul_widens_every_float_exactly(form: Format, random: Random) -> None:
    """Subnormal, zero, infinite and greatest values, one column at a time."""
    kind = np.float16 if form is Format.F16 else np.float32
    info = np.finfo(kind)
    row = np.array(
        [0, info.smallest_subnormal, -info.smallest_subnormal, info.tiny, info.max, -np.inf, np.inf, 1], kind
    )
    w = random.matrix(form, 1, 8)
    w.data[: row.nbytes] = row.view(np.uint8)
    for column, value in enumerate(row[np.isfinite(row)]):
        finite = random.matrix(form, 1, 8)
        finite.data[: row.nbytes] = np.where(np.isfinite(row), row, 0).astype(kind).view(np.uint8)
        one = np.zeros((1, 8), np.float32)
        one[0, np.flatnonzero(np.isfinite(row))[column]] = 1
        assert kernels.matmul(one, finite)[0, 0] == np.float32(value)
    assert np.isnan(kernels.matmul(np.ones((1, 8), np.float32), w)[0, 0])


@pytest.mark.parametrize("form", FLOATS)
@pytest.mark.parametrize(("size", "hidden"), [(72, 50), (33, 130)])
@pytest.mark.parametrize("tokens", [1, 11])
def test_gated_mlp(form: Format, size: int, hidden: int, tokens: int, random: Random) -> None:
    layout, block = random.expert(form, size, hidden)
    matrices, scale, x = expert_matrices(layout, block), random.matrix(form, 1, hidden), random.floats(tokens, hidden)
    assert_close(kernels.GatedMlp(*matrices)(x), reference.gated_mlp(x, *matrices))
    assert_close(kernels.GatedMlp(*matrices, scale)(x), reference.gated_mlp(x, *matrices, scale))


@pytest.mark.parametrize(("width", "tokens"), [(4, 1), (4, 2), (4, 29), (1, 3), (16, 5)])
def test_causal_conv(width: int, tokens: int, random: Random) -> None:
    x, weight, state = random.floats(tokens, 301), random.floats(width, 301), random.floats(width - 1, 301)
    expected_state = state.copy()
    expected = reference.causal_conv(x, weight, expected_state)
    assert_close(kernels.causal_conv(x, weight, state), expected)
    np.testing.assert_array_equal(state, expected_state)


@pytest.mark.parametrize(("key_heads", "value_heads"), [(1, 1), (2, 6)])
@pytest.mark.parametrize(("key_dim", "value_dim"), [(5, 3), (24, 40), (40, 135)])
def test_gated_delta(key_heads: int, value_heads: int, key_dim: int, value_dim: int, random: Random) -> None:
    tokens = 9
    q, k = random.floats(tokens, key_heads, key_dim), random.floats(tokens, key_heads, key_dim)
    v = random.floats(tokens, value_heads, value_dim)
    g, beta = -abs(random.floats(tokens, value_heads)), abs(random.floats(tokens, value_heads)) % 1
    state = random.floats(value_heads, key_dim, value_dim)
    expected_state = state.copy()
    expected = reference.gated_delta(q, k, v, g, beta, expected_state)
    assert_close(kernels.gated_delta(q, k, v, g, beta, state), expected)
    assert_close(state, expected_state)


@pytest.mark.parametrize("dim", [5, 16, 40, 72])
@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 3), (6, 2)])
@pytest.mark.parametrize(("start", "tokens"), [(0, 1), (0, 67), (130, 1), (62, 9)])
def test_attention(dim: int, heads: int, kv_heads: int, start: int, tokens: int, random: Random) -> None:
    q = random.floats(tokens, heads, dim)
    k, v = random.floats(start + tokens + 3, kv_heads, dim), random.floats(start + tokens + 3, kv_heads, dim)
    k[start + tokens :] = v[start + tokens :] = np.nan  # not written yet, so never looked at
    assert_close(kernels.attention(q, k, v, start), reference.attention(q, k, v, start))


@pytest.mark.parametrize("plus_one", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (19, 77)])
def test_rms_norm(plus_one: bool, rows: int, width: int, random: Random) -> None:
    x, weight = random.floats(rows, width), random.floats(width)
    assert_close(kernels.rms_norm(x, weight, 1e-6, plus_one), reference.rms_norm(x, weight, 1e-6, plus_one))


def test_gated_rms_norm(random: Random) -> None:
    x, gate, weight = random.floats(19, 77), random.floats(19, 77), random.floats(77)
    assert_close(kernels.gated_rms_norm(x, gate, weight, 1e-5), reference.gated_rms_norm(x, gate, weight, 1e-5))


@pytest.mark.parametrize("tokens", [1, 7, 29])
def test_delta_gates(tokens: int, random: Random) -> None:
    a, b, bias, rate = random.floats(tokens, 13), random.floats(tokens, 13), random.floats(13), random.floats(13)
    g, beta = kernels.delta_gates(a, b, bias, rate)
    expected_g, expected_beta = reference.delta_gates(a, b, bias, rate)
    assert_close(g, expected_g)
    assert_close(beta, expected_beta)


def test_scale_rows(random: Random) -> None:
    gate, x = random.floats(29), random.floats(29, 77)
    expected = x / (1.0 + np.exp(-gate.astype(np.float64)))[:, None]
    kernels.scale_rows(gate, x)
    assert_close(x, expected)


@pytest.mark.parametrize("name", ["silu_mul", "sigmoid_mul"])
def test_gates(name: str, random: Random) -> None:
    gate, x = random.floats(3, 5, 19) * 10, random.floats(3, 5, 19)
    kernel: Callable[..., np.ndarray] = getattr(kernels, name)
    assert_close(kernel(gate, x), getattr(reference, name)(gate, x))


@pytest.mark.parametrize("k", [1, 4, 37])
def test_route(k: int, random: Random) -> None:
    logits = random.floats(13, 37)
    indices, weights = kernels.route(logits, k)
    expected_indices, expected_weights = reference.route(logits, k)
    np.testing.assert_array_equal(indices, expected_indices)
    assert_close(weights, expected_weights)


def test_route_takes_the_lower_index_among_equals() -> None:
    indices, weights = kernels.route(np.zeros((1, 9), np.float32), 3)
    np.testing.assert_array_equal(indices, [[0, 1, 2]])
    np.testing.assert_allclose(weights, [[1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)


@pytest.mark.parametrize("size", [1, 15, 16, 1000, 300_007])
def test_read_ram_sees_every_word(size: int, random: Random) -> None:
    buffer = aligned_zeros(4 * size)
    words = buffer.view(np.uint32)
    words[...] = random.rng.integers(0, 2**32, size, np.uint32)
    assert kernels.read_ram(buffer) == float(np.bitwise_xor.reduce(words))
