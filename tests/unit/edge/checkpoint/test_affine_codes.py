"""Quantised bytes spelled out: version 1 of the format holds packs that others have made."""

import numpy as np

from edge.checkpoint.layout import Format
from edge.quant.affine import quantize
from edge.quant.floats import is_finite, narrow, widen


def test_whole_numbers_0_to_15_are_their_own_4_bit_codes() -> None:
    values = np.arange(32, dtype=np.float32)[None] % 16
    quantized = quantize(values, Format.Q4, 32)
    assert (quantized.scales.tolist(), quantized.biases.tolist()) == ([[1.0]], [[0.0]])
    # Byte j: column j low, column j + 16 high; both hold j here.
    assert quantized.codes.tobytes().hex() == "00112233445566778899aabbccddeeff"


def test_a_ragged_last_group_has_its_own_scale_and_zero_padding() -> None:
    values = np.zeros((1, 34), np.float32)
    values[0, :32] = np.linspace(-4, 4, 32)
    values[0, 32:] = [100, 355]
    quantized = quantize(values, Format.Q8, 32)
    assert quantized.codes.shape == (1, 64)
    assert quantized.codes[0, 32:].tolist() == [0, 255] + [0] * 30
    assert quantized.biases.tolist() == [[-4.0, 100.0]]
    assert quantized.scales[0, 1] == 1
    assert quantized.scales[0, 0] >= 8 / 255


def test_bfloat16_rounds_to_the_nearest_even() -> None:
    words = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0xBF80FFFF, 0x00000000], np.uint32)
    expected = np.array([0x3F80, 0x3F82, 0x3F81, 0xBF81, 0], np.uint16)
    np.testing.assert_array_equal(narrow(words.view(np.float32), Format.BF16), expected)
    np.testing.assert_array_equal(narrow(widen(expected, Format.BF16), Format.BF16), expected)


def test_bfloat16_infinity_and_nan_are_told_from_its_largest_number() -> None:
    assert is_finite(np.array([0x7F7F, 0xFF7F, 0x0001], np.uint16), Format.BF16)
    assert not is_finite(np.array([0x7F80], np.uint16), Format.BF16)
    assert not is_finite(np.array([0xFFC1], np.uint16), Format.BF16)
