"""Random inputs and the variants of this CPU."""

from collections.abc import Iterator

import pytest

from edge import kernels
from tests.unit.edge.kernels.random_arrays import Random


@pytest.fixture(params=kernels.variants())
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with each instruction set."""
    before = kernels.variant()
    kernels.use_variant(request.param)
    yield request.param
    kernels.use_variant(before)


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    kernels.set_num_threads(3)
    yield
    kernels.set_num_threads(1)


@pytest.fixture
def random() -> Random:
    return Random(20)
