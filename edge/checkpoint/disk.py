"""Plain reads and writes of pack files: whole pieces or an error, checksums, nothing left in the page cache."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import PackError
from edge.kernels import crc32c

CHUNK_BYTES = 4 * 1024**2


class PackFile:
    """A file of a pack, open for reading. Raises: PackError naming the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise PackError(f"{path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file and let the page cache forget it; idempotent."""
        if not self._file.closed:
            self.forget()
            self._file.close()

    def forget(self) -> None:
        """Drop the file's clean pages from the page cache: so that a read is of the disk, and RAM stays for experts."""
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return os.fstat(self._file.fileno()).st_size

    def read_into(self, out: NDArray[np.uint8], offset: int) -> None:
        """Fill `out` (1-D) from `offset` on."""
        done = 0
        while done < len(out):
            try:
                got = os.preadv(self._file.fileno(), [out[done:].data], offset + done)
            except OSError as error:
                raise PackError(f"{self.path}: at byte {offset + done}: {error.strerror}") from error
            if got == 0:
                raise PackError(f"{self.path}: ends at byte {offset + done}, {len(out) - done} bytes early")
            done += got

    def chunks(self, offset: int, nbytes: int) -> Iterator[NDArray[np.uint8]]:
        """A range in pieces, each valid until the next."""
        buffer = np.empty(min(CHUNK_BYTES, nbytes), np.uint8)
        for start in range(offset, offset + nbytes, CHUNK_BYTES):
            piece = buffer[: min(CHUNK_BYTES, offset + nbytes - start)]
            self.read_into(piece, start)
            yield piece

    def crc(self, offset: int, nbytes: int) -> int:
        """CRC-32C of a range."""
        crc = 0
        for piece in self.chunks(offset, nbytes):
            crc = crc32c(piece, crc)
        return crc


def file_crc(path: Path) -> tuple[int, int]:
    """Size and CRC-32C of a whole file. Raises PackError."""
    file = PackFile(path)
    try:
        return file.nbytes, file.crc(0, file.nbytes)
    finally:
        file.close()
