"""Memory that the disk reads into."""

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE_BYTES = 2 * 1024**2


def mapped_bytes(nbytes: int) -> NDArray[np.uint8]:
    """`nbytes` zero bytes in a mapping of their own that begins with a huge page; pages come into being when touched.

    Huge pages lie in one piece: a direct read of 1 MB is one transfer and not 256 (edge/EXPERIMENTS.md). They are asked
    for only where they fit whole, so that no more than `nbytes`, rounded up to a small page, can become resident.
    """
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # Python's default, a shared mapping, gets no huge pages
    memory = mmap.mmap(-1, nbytes + HUGE_PAGE_BYTES, flags=private)
    start = -np.frombuffer(memory, np.uint8).ctypes.data % HUGE_PAGE_BYTES
    whole = nbytes // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    if whole and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE, start, whole)
    return np.frombuffer(memory, np.uint8, nbytes, start)
