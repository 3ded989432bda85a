"""Memory for weights, in huge pages where the system grants them."""

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

HUGE_PAGE_BYTES = 2 * 1024**2


def mapped_bytes(nbytes: int) -> NDArray[np.uint8]:
    """`nbytes` zero bytes in a mapping of their own that begins with a huge page.

    Its pages come into being as they are touched. Only whole huge pages within it are asked to be such: so it takes no
    more than `nbytes`, rounded up to a page.
    """
    memory = mmap.mmap(
        -1, nbytes + HUGE_PAGE_BYTES
    )  # the address is the system's choice; what is cut off costs nothing
    start = -np.frombuffer(memory, np.uint8).ctypes.data % HUGE_PAGE_BYTES
    whole = nbytes // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    if whole and hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE, start, whole)
    return np.frombuffer(memory, np.uint8, nbytes, start)
