"""Files that are read and written past the page cache, which counts as memory: whole pages, from and into pages."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

PIECE_BYTES = 4 * 1024**2


class DirectFile:
    """An open file. What is read or written is page-aligned in memory and in the file, and so is its size.

    Raises: OSError, for a file that ends early too.
    """

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._is_direct = False
        with suppress(OSError):  # a file system without direct I/O: see _forget
            fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_DIRECT)
            self._is_direct = True

    def read_into(self, out: NDArray[np.uint8], offset: int) -> None:
        """Fill `out`."""
        done = 0
        while done < len(out):
            got = os.preadv(self._handle, [out[done : done + PIECE_BYTES].data], offset + done)
            self._forget()
            if not got:
                raise OSError(errno.EIO, "the file ends early")
            done += got

    def write(self, data: NDArray[np.uint8], offset: int) -> None:
        """Write all of `data`."""
        done = 0
        while done < len(data):
            done += os.pwritev(self._handle, [data[done : done + PIECE_BYTES].data], offset + done)
            if not self._is_direct:
                os.fdatasync(self._handle)  # dirty pages cannot be dropped
            self._forget()

    def sync(self) -> None:
        """Return once all is on disk."""
        os.fsync(self._handle)

    def _forget(self) -> None:
        if not self._is_direct:
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def direct_file(name: str, flags: int, directory: int) -> Iterator[tuple[int, DirectFile]]:
    """A file of the open `directory`, by handle and as DirectFile; never what a symbolic link points to."""
    # O_NONBLOCK: opening a pipe that somebody put in a file's place would wait for its writer.
    handle = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        yield handle, DirectFile(handle)
    finally:
        os.close(handle)
