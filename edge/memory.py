"""Memory that the disk reads into."""

import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray


def mapped_bytes(nbytes: int) -> NDArray[np.uint8]:
    """`nbytes` zero bytes in a mapping of their own, aligned to a page; pages come into being as they are touched.

    In small pages: direct reads into huge ones were 2.4 times as slow as into these, and computing from them no faster
    (edge/EXPERIMENTS.md).
    """
    memory = mmap.mmap(-1, nbytes)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with suppress(OSError):  # a kernel that knows none anyway
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.uint8)
