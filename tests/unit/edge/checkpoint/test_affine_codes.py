"""Quantised bytes spelled out: version 2 of the format holds packs that others have made."""

import numpy as np
import pytest

from edge.checkpoint.encode import tile_bytes
from edge.checkpoint.layout import Format, MatrixLayout
from edge.quant.affine import quantize
from edge.quant.floats import is_finite, narrow, widen


@pytest.mark.parametrize(
    ("form", "vectors"),
    [
        # Four columns of row 0, then of row 1, ...
        (Format.Q8, ["00010203" + "01020304" + "02030405", "04050607" + "05060708" + "06070809"]),
        (Format.Q4, ["40516273" + "51627384" + "62738495", "c8d9eafb" + "d9eafb0c" + "eafb0c1d"]),
        (Format.Q3, ["0055aaff" + "55aaff00" + "aaff0055"] * 3 + ["00552aff", "aaaaaaaa" + "aaaaaa55" + "aaaa5555"]),
        (Format.Q2, ["0055aaff" + "55aaff00" + "aaff0055"] * 3 + ["00552aff"]),
    ],
)
def test_whole_numbers_are_their_own_codes(form: Format, vectors: list[str]) -> None:
    values = np.add.outer(np.arange(16), np.arange(64)).astype(np.float32) % 2**form.bits
    values[:, 63] = 2**form.bits - 1  # so that each row has the whole range
    values[:, 62] = 0
    stored = tile_bytes(values, MatrixLayout(form, 16, 64, 64)).tobytes()
    assert stored[:64].hex() == "003c" * 16 + "0000" * 16
    for index, start in enumerate(vectors):
        assert stored[64 * (index + 1) :].hex().startswith(start)


def test_the_last_tile_is_filled_up_with_zeros() -> None:
    stored = tile_bytes(np.full((17, 64), 2, np.float32), MatrixLayout(Format.Q2, 17, 64, 64))
    assert len(stored) == 2 * 320
    assert np.flatnonzero(stored[320:]).tolist() == [33]  # the bias of row 16: 0x4000


def test_a_ragged_last_group_has_its_own_scale_and_zero_padding() -> None:
    values = np.zeros((1, 66), np.float32)
    values[0, :64] = np.linspace(-4, 4, 64)
    values[0, 64:] = [100, 355]
    quantized = quantize(values, Format.Q8, 64)
    assert quantized.codes.shape == (1, 128)
    assert quantized.codes[0, 64:].tolist() == [0, 255] + [0] * 62
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
