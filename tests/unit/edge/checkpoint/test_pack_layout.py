"""The bytes on disk: fixed by version 2, so spelled out here and not computed."""

import numpy as np
import pytest

from edge.checkpoint.layout import ExpertLayout, Format, MatrixLayout
from edge.checkpoint.matrix import (
    Matrix,
    aligned_zeros,
    biases,
    codes,
    dequantize,
    dequantize_rows,
    empty_matrix,
    expert_matrices,
    scales,
)

HALF_ONE = np.array([1], np.float16).view(np.uint8)


@pytest.mark.parametrize(
    ("gate_up", "down", "nbytes"),
    [
        (Format.Q8, Format.Q8, 13_369_344),
        (Format.Q4, Format.Q4, 7_077_888),
        (Format.Q3, Format.Q4, 6_029_312),
        (Format.Q3, Format.Q3, 5_505_024),
        (Format.Q2, Format.Q2, 3_932_160),
    ],
)
def test_an_expert_of_the_397b_takes_no_byte_beside_codes_and_scales(
    gate_up: Format, down: Format, nbytes: int
) -> None:
    wide, tall = MatrixLayout(gate_up, 1024, 4096, 64), MatrixLayout(down, 4096, 1024, 64)
    assert ExpertLayout(wide, wide, tall).block_bytes == nbytes


@pytest.mark.parametrize(
    ("layout", "padded", "tiles", "groups", "record", "nbytes"),
    [
        (MatrixLayout(Format.F32, 3, 17), 32, 0, 0, 0, 384),
        (MatrixLayout(Format.BF16, 3, 16), 16, 0, 0, 0, 128),
        (MatrixLayout(Format.F16, 5, 33), 48, 0, 0, 0, 512),
        (MatrixLayout(Format.Q8, 3, 65, 64), 128, 1, 2, 1088, 2176),
        (MatrixLayout(Format.Q4, 17, 65, 64), 128, 2, 2, 576, 2304),
        (MatrixLayout(Format.Q4, 40, 100, 128), 128, 3, 1, 1088, 3264),
        (MatrixLayout(Format.Q3, 16, 193, 192), 384, 1, 2, 1216, 2432),
        (MatrixLayout(Format.Q2, 1, 1, 64), 64, 1, 1, 320, 320),
    ],
)
def test_records_follow_each_other_without_gaps(
    layout: MatrixLayout, padded: int, tiles: int, groups: int, record: int, nbytes: int
) -> None:
    found = (layout.padded_cols, layout.num_tiles, layout.num_groups, layout.record_bytes, layout.nbytes)
    assert found == (padded, tiles, groups, record, nbytes)


# Of a [17, 65] matrix with groups of 64, so of two tiles of two records each: where a code's bits lie, as (byte, lowest
# bit there, lowest bit of the code, how many).
PLACES = [
    (Format.Q8, (3, 6), [(142, 0, 0, 8)]),
    (Format.Q8, (16, 64), [(3328, 0, 0, 8)]),
    (Format.Q4, (3, 2), [(78, 0, 0, 4)]),
    (Format.Q4, (3, 6), [(78, 4, 0, 4)]),
    (Format.Q4, (15, 63), [(575, 4, 0, 4)]),
    (Format.Q4, (16, 64), [(1792, 0, 0, 4)]),
    (Format.Q3, (3, 6), [(78, 2, 0, 2), (334, 1, 2, 1)]),
    (Format.Q3, (2, 63), [(267, 6, 0, 2), (395, 7, 2, 1)]),
    (Format.Q3, (16, 64), [(1408, 0, 0, 2), (1664, 0, 2, 1)]),
    (Format.Q2, (3, 6), [(78, 2, 0, 2)]),
    (Format.Q2, (2, 63), [(267, 6, 0, 2)]),
    (Format.Q2, (16, 64), [(1024, 0, 0, 2)]),
]


@pytest.mark.parametrize(("form", "place", "bits"), PLACES)
def test_a_code_lies_in_its_rows_lane(
    form: Format, place: tuple[int, int], bits: list[tuple[int, int, int, int]]
) -> None:
    matrix = empty_matrix(MatrixLayout(form, 17, 65, 64))
    scales(matrix)[...] = 1
    for code in range(2**form.bits):
        expected = np.zeros((17, 65), np.float32)
        expected[place] = code
        for byte, lowest, of_code, width in bits:
            matrix.data[byte] = (code >> of_code) % 2**width << lowest
        np.testing.assert_array_equal(dequantize(matrix), expected)


@pytest.mark.parametrize(("form", "record", "tile"), [(Format.Q8, 1088, 2176), (Format.Q3, 448, 896)])
def test_scales_and_biases_stand_before_the_codes_of_their_record(form: Format, record: int, tile: int) -> None:
    matrix = empty_matrix(MatrixLayout(form, 17, 65, 64))
    codes(matrix)[...] = 255
    matrix.data[6:8] = HALF_ONE  # scale of row 3, first group
    matrix.data[tile + record + 32 : tile + record + 34] = HALF_ONE  # bias of row 16, second group
    expected = np.zeros((17, 65), np.float32)
    expected[3, :64] = 2**form.bits - 1
    expected[16, 64] = 1
    np.testing.assert_array_equal(dequantize(matrix), expected)
    assert (scales(matrix)[0, 0, 3], biases(matrix)[1, 1, 0]) == (1, 1)


def test_the_parts_of_a_block_follow_each_other() -> None:
    wide, tall = MatrixLayout(Format.Q8, 36, 40, 64), MatrixLayout(Format.F32, 40, 36)
    layout = ExpertLayout(wide, wide, tall)
    assert (layout.gate_offset, layout.up_offset, layout.down_offset) == (0, 3264, 6528)  # 3 tiles of 64 + 16 × 64
    assert layout.block_bytes == 16384
    gate, up, down = expert_matrices(layout, aligned_zeros(layout.block_bytes, 4096))
    assert up.data.ctypes.data - gate.data.ctypes.data == 3264
    assert down.data.ctypes.data - gate.data.ctypes.data == 6528


def test_floats_lie_in_padded_rows() -> None:
    matrix = empty_matrix(MatrixLayout(Format.BF16, 2, 3))
    matrix.data[[1, 32 + 5]] = [0x40, 0xC0]  # the upper bytes of 2.0 and -2.0
    np.testing.assert_array_equal(dequantize(matrix), np.array([[2, 0, 0], [0, 0, -2]], np.float32))
    np.testing.assert_array_equal(dequantize_rows(matrix, [1]), np.array([[0, 0, -2]], np.float32))


@pytest.mark.parametrize("form", Format)
def test_some_rows_are_those_of_the_whole_in_any_order(form: Format) -> None:
    layout = MatrixLayout(form, 37, 70, 64 if form.is_quantized else 0)
    matrix, rng = empty_matrix(layout), np.random.default_rng(0)
    matrix.data[:] = rng.integers(0, 60, layout.nbytes)  # as floats of any format: finite
    whole = dequantize(matrix)
    for rows in ([36, 0, 36, 17], slice(5, 33), slice(36, None), [], np.array([-1, 15])):
        np.testing.assert_array_equal(dequantize_rows(matrix, rows), whole[rows])
    with pytest.raises(IndexError):
        dequantize_rows(matrix, [37])  # not of the padding rows of its tile


@pytest.mark.parametrize(
    ("form", "rows", "cols", "group"),
    [
        (Format.Q4, 1, 1, 0),
        (Format.Q3, 1, 1, 32),
        (Format.Q8, 1, 1, 96),
        (Format.Q2, 1, 1, -64),
        (Format.F32, 1, 1, 64),
        (Format.F32, 0, 1, 0),
        (Format.Q4, 1, -1, 64),
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
