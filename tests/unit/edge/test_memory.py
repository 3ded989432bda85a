"""Memory for weights: aligned, zero, and no larger than asked for."""

import ctypes
import mmap

import numpy as np
import pytest

from edge.memory import HUGE_PAGE_BYTES, mapped_bytes


@pytest.mark.parametrize("nbytes", [4096, HUGE_PAGE_BYTES - 1, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 4096])
def test_it_has_the_size_asked_for_and_begins_with_a_huge_page(nbytes: int) -> None:
    memory = mapped_bytes(nbytes)
    assert memory.shape == (nbytes,)
    assert memory.ctypes.data % HUGE_PAGE_BYTES == 0
    assert not memory.any()
    memory[:] = 7
    assert int(memory.sum(dtype=np.int64)) == 7 * nbytes


def test_touching_one_byte_brings_in_no_more_than_its_huge_page() -> None:
    nbytes = 2 * HUGE_PAGE_BYTES + 4096
    memory = mapped_bytes(nbytes)
    memory[-1] = 1  # beyond the last whole huge page
    states = np.zeros(-(-nbytes // mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    place = (ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(nbytes), ctypes.c_void_p(states.ctypes.data))
    assert libc.mincore(*place) == 0
    assert (states & 1).tolist() == [0] * (len(states) - 1) + [1]
