"""Keeping weights in RAM when the system would rather swap them out."""

import ctypes
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def lock_in_ram(arrays: Iterable[NDArray[np.generic]]) -> bool:
    """Lock the pages of `arrays`, which become resident at once; False as soon as the system refuses one.

    Locks go with the memory itself. The limit is RLIMIT_MEMLOCK, for those who are not root.
    """
    libc = ctypes.CDLL(None)
    return all(libc.mlock(ctypes.c_void_p(a.ctypes.data), ctypes.c_size_t(a.nbytes)) == 0 for a in arrays)
