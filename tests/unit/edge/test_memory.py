"""Memory that the disk reads into: aligned, zero, and there only where it was touched."""

import ctypes
import mmap

import numpy as np
import pytest

from edge.memory import mapped_bytes

HUGE_PAGE_BYTES = 2 * 1024**2


@pytest.mark.parametrize("nbytes", [4096, 3 * HUGE_PAGE_BYTES + 4096])
def test_it_has_the_size_asked_for_and_begins_with_a_page(nbytes: int) -> None:
    memory = mapped_bytes(nbytes)
    assert memory.shape == (nbytes,)
    assert memory.ctypes.data % mmap.PAGESIZE == 0
    assert not memory.any()
    memory[:] = 7
    assert int(memory.sum(dtype=np.int64)) == 7 * nbytes


def test_touching_one_byte_brings_in_no_huge_page() -> None:
    nbytes = 4 * HUGE_PAGE_BYTES
    memory = mapped_bytes(nbytes)
    memory[nbytes // 2] = 1
    states = np.zeros(nbytes // mmap.PAGESIZE, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    place = (ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(nbytes), ctypes.c_void_p(states.ctypes.data))
    assert libc.mincore(*place) == 0
    assert int((states & 1).sum()) == 1
