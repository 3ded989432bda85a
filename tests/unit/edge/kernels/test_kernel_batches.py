"""A token's result has the same bits in any batch and on any number of threads: the engine's promise rests on this."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from edge import kernels
from edge.checkpoint.layout import Format
from edge.checkpoint.matrix import expert_matrices
from tests.unit.edge.kernels.random_arrays import QUANTIZED, Random

pytestmark = pytest.mark.usefixtures("variant")

Floats = NDArray[np.float32]
TOKENS = 55
CUTS = [[1] * TOKENS, [3] * 18 + [1], [2, 4, 49], [50, 5]]


def assert_same_in_any_batch(compute: Callable[[slice], Floats]) -> None:
    """`compute(tokens)` for consecutive slices, on 1, 2 and 3 threads, against all tokens at once."""
    whole = compute(slice(0, TOKENS))
    assert np.isfinite(whole).all()
    for threads in (1, 2, 3):
        kernels.set_num_threads(threads)
        for cut in CUTS:
            stops = np.cumsum(cut).tolist()
            parts = [compute(slice(stop - size, stop)) for size, stop in zip(cut, stops, strict=True)]
            np.testing.assert_array_equal(np.concatenate(parts).view(np.uint32), whole.view(np.uint32))


@pytest.mark.parametrize("form", Format)
def test_matmul(form: Format, random: Random) -> None:
    w, x = random.matrix(form, 131, 700), random.floats(TOKENS, 700)
    assert_same_in_any_batch(lambda tokens: kernels.matmul(x[tokens], w))


@pytest.mark.parametrize("form", Format)
def test_projections(form: Format, random: Random) -> None:
    project = kernels.Projections(random.matrix(form, 131, 700), random.matrix(Format.BF16, 7, 700))
    x = random.floats(TOKENS, 700)
    assert_same_in_any_batch(lambda tokens: np.concatenate(project(x[tokens]), axis=1))


@pytest.mark.parametrize("form", Format)
def test_gated_mlp(form: Format, random: Random) -> None:
    layout, block = random.expert(form, 66, 130)
    mlp = kernels.GatedMlp(*expert_matrices(layout, block), random.matrix(Format.BF16, 1, 130))
    x = random.floats(TOKENS, 130)
    assert_same_in_any_batch(lambda tokens: mlp(x[tokens]))


@pytest.mark.parametrize("form", QUANTIZED)
@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 7, 16, 33, 64, 65, 300])
def test_quantized_tokens_do_not_depend_on_their_number(form: Format, tokens: int, random: Random) -> None:
    w, x = random.matrix(form, 85, 1100), random.floats(300, 1100)
    whole = kernels.matmul(x, w)
    np.testing.assert_array_equal(kernels.matmul(x[300 - tokens :], w).view(np.uint32), whole[-tokens:].view(np.uint32))


def test_attention(random: Random) -> None:
    q, k, v = random.floats(TOKENS, 6, 40), random.floats(TOKENS + 20, 2, 40), random.floats(TOKENS + 20, 2, 40)
    assert_same_in_any_batch(lambda tokens: kernels.attention(q[tokens], k, v, 20 + tokens.start))


def test_gated_delta(random: Random) -> None:
    q, k, v = random.floats(TOKENS, 2, 24), random.floats(TOKENS, 2, 24), random.floats(TOKENS, 4, 70)
    g, beta = -abs(random.floats(TOKENS, 4)), abs(random.floats(TOKENS, 4)) % 1
    state = np.zeros((4, 24, 70), np.float32)

    def compute(tokens: slice) -> Floats:
        if tokens.start == 0:
            state[...] = 0
        return kernels.gated_delta(q[tokens], k[tokens], v[tokens], g[tokens], beta[tokens], state)

    assert_same_in_any_batch(compute)


def test_causal_conv(random: Random) -> None:
    x, weight, state = random.floats(TOKENS, 301), random.floats(4, 301), np.zeros((3, 301), np.float32)

    def compute(tokens: slice) -> Floats:
        if tokens.start == 0:
            state[...] = 0
        return kernels.causal_conv(x[tokens], weight, state)

    assert_same_in_any_batch(compute)


def test_norms_gates_and_routing(random: Random) -> None:
    x, gate, weight = random.floats(TOKENS, 77), random.floats(TOKENS, 77), random.floats(77)
    assert_same_in_any_batch(lambda tokens: kernels.rms_norm(x[tokens], weight, 1e-6, plus_one=True))
    assert_same_in_any_batch(lambda tokens: kernels.gated_rms_norm(x[tokens], gate[tokens], weight, 1e-6))
    assert_same_in_any_batch(lambda tokens: kernels.silu_mul(gate[tokens], x[tokens]))
    assert_same_in_any_batch(lambda tokens: kernels.sigmoid_mul(gate[tokens], x[tokens]))
    assert_same_in_any_batch(lambda tokens: kernels.route(x[tokens], 5)[1])
