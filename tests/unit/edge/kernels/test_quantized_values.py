"""Products with quantised matrices equal their formula: exactly where all numbers are integers, else to rounding."""

import numpy as np
import pytest

from edge import kernels, reference
from edge.checkpoint.layout import Format
from edge.checkpoint.matrix import biases, codes, dequantize, expert_matrices, scales
from tests.unit.edge.kernels.random_arrays import QUANTIZED, Random, assert_close

pytestmark = [pytest.mark.usefixtures("variant"), pytest.mark.parametrize("form", QUANTIZED)]

TOKENS = [1, 2, 3, 5, 7, 16, 33, 64, 65, 300]


@pytest.mark.parametrize(("rows", "cols", "group"), [(1, 1, 64), (5, 64, 64), (37, 50, 128), (85, 1100, 192)])
@pytest.mark.parametrize("tokens", TOKENS)
def test_matmul(form: Format, rows: int, cols: int, group: int, tokens: int, random: Random) -> None:
    w, x = random.matrix(form, rows, cols, group), random.floats(tokens, cols)
    # A single product is a difference of two numbers, scale times code and bias, that are much greater.
    assert_close(kernels.matmul(x, w), reference.matmul(x, w), 1e-5 if cols == 1 else 5e-7)


@pytest.mark.parametrize("tokens", TOKENS)
def test_matmul_of_integers_is_exact(form: Format, tokens: int, random: Random) -> None:
    """Activations that are their own digits: the greatest of each block is the greatest there is, both signs of all."""
    x = random.rng.integers(-300, 301, (tokens, 130)).astype(np.float32)
    x[:, [7, 64, 129]] = random.rng.choice([-reference.DIGITS_TOP, reference.DIGITS_TOP], (tokens, 3))
    w = random.matrix(form, 37, 130)
    scales(w)[...] = random.rng.integers(0, 3, scales(w).shape)
    biases(w)[...] = random.rng.integers(-3, 4, biases(w).shape)
    codes(w)[:, :, :] &= 0x3F if form is Format.Q8 else 0xFF  # so that every sum is below 2^24
    expected = x.astype(np.float64) @ dequantize(w).astype(np.float64).T
    np.testing.assert_array_equal(kernels.matmul(x, w), expected)


def test_greatest_codes_and_digits_do_not_overflow(form: Format, random: Random) -> None:
    """The sums that 16-bit or saturating arithmetic would get wrong."""
    w = random.matrix(form, 16, 256, group=256)
    codes(w)[...] = 255
    scales(w)[...] = 2.0**-13
    biases(w)[...] = 0
    for tokens in (1, 40):
        for value in (1.0, -1.0, 32639 / 32512):  # digits (127, 0), (-127, 0) and, beside it, (127, 127)
            x = np.full((tokens, 256), min(value, 1.0), np.float32)
            x[:, 1:] *= np.float32(32512 - 129) / np.float32(32512) if value > 1 else 1
            assert_close(kernels.matmul(x, w), reference.matmul(x, w), 3e-7)


def test_rounding_the_activations_changes_little(form: Format, random: Random) -> None:
    w, x = random.matrix(form, 85, 1100), random.floats(9, 1100)
    x[:, ::50] *= 100  # outliers, from which the other columns of their blocks suffer
    assert_close(kernels.matmul(x, w), x.astype(np.float64) @ dequantize(w).astype(np.float64).T, 1e-4)


@pytest.mark.parametrize(("size", "hidden", "group"), [(72, 50, 64), (33, 130, 64), (200, 90, 128)])
@pytest.mark.parametrize("tokens", [1, 8, 11])
def test_gated_mlp(form: Format, size: int, hidden: int, group: int, tokens: int, random: Random) -> None:
    """Its parts to the bit; the formula less closely, where an activation lies between two integers."""
    layout, block = random.expert(form, size, hidden, group)
    x = random.floats(tokens, hidden)
    gate, up, down = expert_matrices(layout, block)
    found = kernels.GatedMlp(gate, up, down)(x)
    h = kernels.silu_mul(kernels.matmul(x, gate), kernels.matmul(x, up))
    np.testing.assert_array_equal(found.view(np.uint32), kernels.matmul(h, down).view(np.uint32))
    assert_close(found, reference.gated_mlp(x, gate, up, down), 3e-5)


def test_the_down_projection_may_have_another_format(form: Format, random: Random) -> None:
    layout, block = random.expert(form, 72, 130, down=Format.Q4)
    x = random.floats(3, 130)
    matrices = expert_matrices(layout, block)
    assert_close(kernels.GatedMlp(*matrices)(x), reference.gated_mlp(x, *matrices), 3e-5)


@pytest.mark.parametrize("tokens", [1, 9])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_the_results_of_its_token_only(
    form: Format, tokens: int, broken: float, random: Random
) -> None:
    w, x = random.matrix(form, 20, 200), random.floats(tokens + 1, 200)
    x[tokens, 130] = broken
    found = kernels.matmul(x, w)
    assert np.isnan(found[tokens]).all()
    np.testing.assert_array_equal(found[:tokens], kernels.matmul(x[:tokens], w))


@pytest.mark.parametrize("magnitude", [0.0, 1e-45, 9e-31, 1.1e-30, 1e-20, 1e30])
def test_magnitudes_of_any_size(form: Format, magnitude: float, random: Random) -> None:
    w = random.matrix(form, 20, 200)
    x = (random.floats(3, 200) / 4 * magnitude).astype(np.float32)
    x[:, [0, 64, 128, 192]] = magnitude
    assert_close(kernels.matmul(x, w), reference.matmul(x, w))


def test_a_fault_in_one_weight_is_seen(form: Format, random: Random) -> None:
    """The tests above would notice any one code, scale or bias taken from a wrong place."""
    w, x = random.matrix(form, 37, 130), np.ones((2, 130), np.float32)
    before = kernels.matmul(x, w)
    for part, change in ((codes(w).view(np.int8), 1), (scales(w), 2), (biases(w), 2)):
        damaged, kept = tuple(size // 2 for size in part.shape), part.copy()
        part[damaged] = part[damaged] ^ change if part.dtype == np.int8 else part[damaged] * change
        changed = np.flatnonzero((kernels.matmul(x, w) != before).any(axis=0))
        assert len(changed) == 1
        part[...] = kept
