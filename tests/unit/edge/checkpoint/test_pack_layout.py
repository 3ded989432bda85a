"""The bytes on disk: fixed by version 1, so spelled out here and not computed."""

import numpy as np
import pytest

from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, aligned_zeros, dequantize, dequantize_rows, empty_matrix, expert_matrices


def test_an_expert_of_the_397b_at_4_bits_has_its_published_size() -> None:
    wide, tall = MatrixLayout(Format.Q4, 1024, 4096, 64), MatrixLayout(Format.Q4, 4096, 1024, 64)
    assert ExpertLayout(wide, wide, tall).block_bytes == 7_077_888


@pytest.mark.parametrize(
    ("layout", "padded", "groups", "scales", "biases", "nbytes"),
    [
        (MatrixLayout(Format.F32, 3, 17), 32, 0, 384, 384, 384),
        (MatrixLayout(Format.BF16, 3, 16), 16, 0, 128, 128, 128),
        (MatrixLayout(Format.F16, 5, 33), 48, 0, 512, 512, 512),
        (MatrixLayout(Format.Q8, 3, 65, 64), 128, 2, 384, 448, 512),
        (MatrixLayout(Format.Q4, 3, 65, 64), 128, 2, 192, 256, 320),
        (MatrixLayout(Format.Q4, 40, 100, 32), 128, 4, 2560, 2880, 3200),
    ],
)
def test_sections_start_at_multiples_of_64(
    layout: MatrixLayout, padded: int, groups: int, scales: int, biases: int, nbytes: int
) -> None:
    assert (layout.padded_cols, layout.num_groups) == (padded, groups)
    assert (layout.codes_offset, layout.scales_offset, layout.biases_offset, layout.nbytes) == (
        0,
        scales,
        biases,
        nbytes,
    )


def test_the_parts_of_a_block_follow_each_other() -> None:
    wide, tall = MatrixLayout(Format.Q8, 36, 40, 32), MatrixLayout(Format.F32, 40, 36)
    layout = ExpertLayout(wide, wide, tall)
    # codes 36 × 64, scales and biases 36 × 2 × 2 rounded up to 192 each
    assert (layout.gate_offset, layout.up_offset, layout.down_offset) == (0, 2688, 5376)
    assert layout.block_bytes == 16384
    gate, up, down = expert_matrices(layout, aligned_zeros(layout.block_bytes, 4096))
    assert up.data.ctypes.data - gate.data.ctypes.data == 2688
    assert down.data.ctypes.data - gate.data.ctypes.data == 5376


def test_four_bit_codes_lie_16_columns_apart_in_a_byte() -> None:
    layout = MatrixLayout(Format.Q4, 1, 64, 32)
    matrix = empty_matrix(layout)
    matrix.data[0] = 0x21  # columns 0 and 16 of the first run
    matrix.data[15] = 0x43  # columns 15 and 31
    matrix.data[16] = 0x65  # columns 32 and 48: the second run, and the second group
    matrix.data[64:68] = np.array([2.0, 0.5], np.float16).view(np.uint8)
    matrix.data[128:132] = np.array([0.0, -1.0], np.float16).view(np.uint8)
    expected = np.zeros((1, 64), np.float32)
    expected[0, [0, 16, 15, 31]] = [2, 4, 6, 8]
    expected[0, 32:] = -1
    expected[0, [32, 48]] = [1.5, 2]
    np.testing.assert_array_equal(dequantize(matrix), expected)


def test_eight_bit_codes_lie_in_order() -> None:
    layout = MatrixLayout(Format.Q8, 2, 3, 32)
    matrix = empty_matrix(layout)
    matrix.data[[0, 2, 33]] = [1, 255, 7]
    matrix.data[64:68] = np.array([0.5, 3.0], np.float16).view(np.uint8)
    matrix.data[128:132] = np.array([-2.0, 10.0], np.float16).view(np.uint8)
    np.testing.assert_array_equal(dequantize(matrix), np.array([[-1.5, -2, 125.5], [10, 31, 10]], np.float32))


def test_floats_lie_in_padded_rows() -> None:
    matrix = empty_matrix(MatrixLayout(Format.BF16, 2, 3))
    matrix.data[[1, 32 + 5]] = [0x40, 0xC0]  # the upper bytes of 2.0 and -2.0
    np.testing.assert_array_equal(dequantize(matrix), np.array([[2, 0, 0], [0, 0, -2]], np.float32))
    np.testing.assert_array_equal(dequantize_rows(matrix, [1]), np.array([[0, 0, -2]], np.float32))


@pytest.mark.parametrize(
    ("form", "rows", "cols", "group"),
    [
        (Format.Q4, 1, 1, 0),
        (Format.Q8, 1, 1, 48),
        (Format.F32, 1, 1, 32),
        (Format.F32, 0, 1, 0),
        (Format.Q4, 1, -1, 32),
    ],
)
def test_impossible_layouts_are_refused(form: Format, rows: int, cols: int, group: int) -> None:
    with pytest.raises(ValueError, match=r"group|matrix of"):
        MatrixLayout(form, rows, cols, group)


def test_parts_that_form_no_expert_are_refused() -> None:
    wide = MatrixLayout(Format.F32, 36, 40)
    with pytest.raises(ValueError, match="do not form one expert"):
        ExpertLayout(wide, wide, wide)


def test_data_of_the_wrong_size_or_alignment_is_refused() -> None:
    layout = MatrixLayout(Format.F32, 1, 16)
    with pytest.raises(ValueError, match=r"must be uint8\[64\]"):
        Matrix(layout, aligned_zeros(63))
    with pytest.raises(ValueError, match="multiple of 64"):
        Matrix(layout, aligned_zeros(65)[1:])
