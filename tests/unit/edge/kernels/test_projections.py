"""Products of one input with several matrices: those of each alone, to the bit."""

import numpy as np
import pytest

from edge import kernels
from edge.checkpoint.layout import Format
from tests.unit.edge.kernels.random_arrays import Random

pytestmark = pytest.mark.usefixtures("variant")


@pytest.mark.parametrize("tokens", [1, 3, 300])
@pytest.mark.parametrize("threads", [1, 3])
def test_matrices_of_all_formats_together(tokens: int, threads: int, random: Random) -> None:
    kernels.set_num_threads(threads)
    matrices = [random.matrix(form, 5 + 40 * place, 300) for place, form in enumerate(Format)]
    matrices.append(random.matrix(Format.Q4, 33, 300, group=192))  # padded further than groups of 64
    x = random.floats(tokens, 300)
    products = kernels.Projections(*matrices)(x)
    assert len(products) == len(matrices)
    for w, found in zip(matrices, products, strict=True):
        np.testing.assert_array_equal(found.view(np.uint32), kernels.matmul(x, w).view(np.uint32))


def test_large_matrices_are_shared_out_over_the_threads(random: Random) -> None:
    """As in a layer of the 397B: one of many rows, and two of few rows in another format."""
    matrices = [random.matrix(Format.Q4, 1237, 700), *(random.matrix(Format.BF16, 64, 700) for _ in range(2))]
    x = random.floats(2, 700)
    for w, found in zip(matrices, kernels.Projections(*matrices)(x), strict=True):
        np.testing.assert_array_equal(found.view(np.uint32), kernels.matmul(x, w).view(np.uint32))


def test_no_tokens_give_no_rows(random: Random) -> None:
    project = kernels.Projections(random.matrix(Format.Q4, 7, 20), random.matrix(Format.F32, 3, 20))
    assert [product.shape for product in project(random.floats(0, 20))] == [(0, 7), (0, 3)]


def test_matrices_stay_alive_as_long_as_their_projections(random: Random) -> None:
    w, x = random.matrix(Format.Q4, 70, 200), random.floats(2, 200)
    expected, project = kernels.matmul(x, w), kernels.Projections(w)
    del w
    np.testing.assert_array_equal(project(x)[0], expected)
