"""Group-wise quantisation: the error bound holds for whatever numbers come, and what cannot be said is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edge.checkpoint.encode import tile_bytes
from edge.checkpoint.layout import Format, MatrixLayout
from edge.checkpoint.matrix import dequantize, empty_matrix
from edge.quant.affine import quantize
from edge.quant.planes import pack_tiles, unpack_lanes

QUANTIZED = [form for form in Format if form.is_quantized]
FORMS = st.sampled_from(QUANTIZED)
GROUPS = st.sampled_from([64, 128, 192])
# Group ranges of this size keep the scale in fp16; all smaller values, subnormals too, may come.
NUMBERS = st.floats(-60000, 60000, width=32)
SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 150))


def stored(values: NDArray[np.float32], form: Format, group: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The numbers after storing, and each one's scale."""
    layout = MatrixLayout(form, values.shape[0], values.shape[1], group)
    matrix = empty_matrix(layout)
    matrix.data[:] = tile_bytes(values, layout)
    spread = np.repeat(quantize(values, form, group).scales.astype(np.float32), group, axis=1)[:, : values.shape[1]]
    return dequantize(matrix), spread


@given(SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=NUMBERS)), FORMS, GROUPS)
def test_no_number_moves_by_more_than_half_a_scale(values: NDArray[np.float32], form: Format, group: int) -> None:
    result, spread = stored(values, form, group)
    # Beyond it only what float32 arithmetic rounds on numbers of that size.
    info = np.finfo(np.float32)
    rounding = 4 * info.eps * (np.abs(values) + spread * 256) + 256 * info.smallest_subnormal
    assert (np.abs(result - values) <= spread / 2 + rounding).all()


@given(SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=NUMBERS)), FORMS, GROUPS)
def test_a_scale_is_hardly_larger_than_the_range_asks(values: NDArray[np.float32], form: Format, group: int) -> None:
    quantized = quantize(values, form, group)
    for start in range(0, values.shape[1], group):
        part = values[:, start : start + group]
        # fp16 rounds the bias down by at most 1/1024 of itself, or 6e-8 near zero, and the scale up likewise.
        reach = np.ptp(part, axis=1) + np.abs(part.min(axis=1)) / 1023 + 6e-8
        ideal = reach / (2**form.bits - 1)
        assert (quantized.scales[:, start // group].astype(np.float32) <= ideal * 1.002 + 6e-8).all()


@given(st.floats(-65504, 65504, width=16), FORMS, st.integers(1, 100))
def test_a_constant_that_fp16_holds_is_exact(value: float, form: Format, cols: int) -> None:
    values = np.full((2, cols), value, np.float32)
    result, _ = stored(values, form, 64)
    np.testing.assert_array_equal(result, values)


@given(SHAPES, FORMS, GROUPS)
def test_padding_columns_have_code_zero(shape: tuple[int, int], form: Format, group: int) -> None:
    values = np.random.default_rng(0).standard_normal(shape, np.float32) + 3
    quantized = quantize(values, form, group)
    assert not quantized.codes[:, shape[1] :].any()


@given(st.integers(1, 3), st.integers(1, 3), FORMS, GROUPS, st.integers(0, 2**32 - 1))
def test_every_code_survives_packing(num_tiles: int, num_groups: int, form: Format, group: int, seed: int) -> None:
    shape = (16 * num_tiles, num_groups * group)
    codes = np.random.default_rng(seed).integers(0, 2**form.bits, shape, np.uint8)
    vectors = pack_tiles(codes, form, group)
    assert vectors.nbytes == codes.size * form.bits // 8
    rows = np.arange(len(codes))
    unpacked = unpack_lanes(vectors[rows // 16, :, :, rows % 16], form)
    np.testing.assert_array_equal(unpacked.reshape(shape), codes)


@pytest.mark.parametrize("form", QUANTIZED)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
        (-np.inf, "NaN or infinite"),
        (-65505.0, "below the -65504"),
        (-3e38, "below the -65504"),
        (3e38, "needs a scale of"),
    ],
)
@pytest.mark.parametrize("place", [(0, 0), (2, 69)])
def test_what_the_format_cannot_say_is_refused(form: Format, bad: float, message: str, place: tuple[int, int]) -> None:
    values = np.ones((3, 70), np.float32)
    values[place] = bad
    with pytest.raises(ValueError, match=message):
        quantize(values, form, 64)


@pytest.mark.parametrize("form", QUANTIZED)
def test_large_positive_numbers_fit_as_long_as_the_scale_does(form: Format) -> None:
    values = np.full((1, 64), 70000, np.float32)
    values[0, 0] = 69000
    result, spread = stored(values, form, 64)
    assert (np.abs(result - values) <= spread / 2 + 0.1).all()
