"""Memory that the disk reads into: aligned, zero, and no larger than asked for."""

import ctypes
import mmap
import re
from pathlib import Path

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


def test_what_no_huge_page_fits_into_whole_comes_in_small_ones() -> None:
    nbytes = 2 * HUGE_PAGE_BYTES + 4 * mmap.PAGESIZE
    memory = mapped_bytes(nbytes)
    memory[-1] = 1
    states = np.zeros(nbytes // mmap.PAGESIZE, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    place = (ctypes.c_void_p(memory.ctypes.data), ctypes.c_size_t(nbytes), ctypes.c_void_p(states.ctypes.data))
    assert libc.mincore(*place) == 0
    assert (states & 1).tolist() == [0] * (len(states) - 1) + [1]


def test_huge_pages_are_asked_for_in_memory_that_can_have_them() -> None:
    """The system may have none left, so the flags are looked at: `hg` is the advice, `sh` would be a shared mapping."""
    memory = mapped_bytes(4 * HUGE_PAGE_BYTES)
    flags, is_ours = list[str](), False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if place := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            is_ours = int(place[1], 16) <= memory.ctypes.data < int(place[2], 16)
        elif is_ours and line.startswith("VmFlags:"):
            flags = line.split()[1:]
    if not Path("/sys/kernel/mm/transparent_hugepage").is_dir():
        pytest.skip("a kernel without transparent huge pages")
    assert "hg" in flags
    assert "sh" not in flags
