"""Random matrices in a pack's bytes: their spread, what is constant or silent in them, and their padding."""

import numpy as np
import pytest

from edge.checkpoint import random_weights
from edge.checkpoint.layout import Format, MatrixLayout
from edge.checkpoint.matrix import Matrix, biases, codes, dequantize, empty_matrix, scales
from edge.checkpoint.random_weights import RandomMatrix

FORMS = [form for form in Format if form is not Format.F16]


def layout_of(form: Format, rows: int, cols: int) -> MatrixLayout:
    return MatrixLayout(form, rows, cols, 64 if form.is_quantized else 0)


def filled(random: RandomMatrix) -> Matrix:
    matrix = empty_matrix(random.layout)
    matrix.data[:] = np.concatenate(list(random.pieces()))
    return matrix


@pytest.mark.parametrize("form", FORMS)
def test_weights_have_the_spread_asked_for_and_no_mean(form: Format) -> None:
    values = dequantize(filled(RandomMatrix(layout_of(form, 200, 512), 0.02, (1, 2))))
    assert values.std() == pytest.approx(0.02, rel=0.02)
    assert abs(values.mean()) < 0.001 * 0.02 * 10
    assert abs(np.corrcoef(values[::2].ravel(), values[1::2].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("form", FORMS)
def test_silent_rows_and_constant_columns(form: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    random = RandomMatrix(layout_of(form, 100, 192), 0.5, (3,), num_silent_rows=48, constant=0.25)
    monkeypatch.setattr(random_weights, "PIECE_BYTES", 1)  # a piece per 16 rows
    assert len(list(random.pieces())) == 7
    values = dequantize(filled(random))
    assert not values[:48].any()
    assert (values[48:, :64] == 0.25).all()
    assert values[48:, 64:].std() > 0.4


def test_rows_that_are_not_there_are_zero_bytes() -> None:
    matrix = filled(RandomMatrix(layout_of(Format.Q3, 21, 128), 1, (0,)))
    assert not scales(matrix)[1, :, 5:].any()
    assert not biases(matrix)[1, :, 5:].any()
    assert not codes(matrix)[1].view(np.uint32).reshape(2, -1, 16)[:, :, 5:].any()
    assert scales(matrix)[1, :, :5].all()


def test_the_same_seed_gives_the_same_bytes_and_another_others() -> None:
    layout = layout_of(Format.Q4, 40, 128)
    first, second, other = (filled(RandomMatrix(layout, 1, seed)).data for seed in ((1, 2), (1, 2), (2, 1)))
    np.testing.assert_array_equal(first, second)
    assert (first != other).mean() > 0.5


@pytest.mark.parametrize(("cols", "silent"), [(65, 0), (64, 8)])
def test_what_the_format_cannot_fill_evenly_is_refused(cols: int, silent: int) -> None:
    with pytest.raises(ValueError, match="silent rows"):
        RandomMatrix(layout_of(Format.Q8, 32, cols), 1, (0,), silent)
