"""Rows of a matrix that stays on disk: of an embedding a token needs one row in some hundred thousand."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.contents import DenseEntry
from edge.checkpoint.disk import PackFile
from edge.checkpoint.layout import BLOCK_ALIGNMENT, TILE_ROWS, MatrixLayout, round_up
from edge.checkpoint.matrix import Matrix, aligned_zeros, dequantize_rows
from edge.errors import PackError, StorageError
from edge.kernels import crc32c

BUFFER_BYTES = 4 * 1024**2  # of tiles that are read at once
TILES_PER_CHECK = 64  # when the whole matrix is read once to check it


class RowReader(Protocol):
    """The part of edge.kernels.ExpertReader that this needs."""

    def read(self, file: int, offset: int, out: NDArray[np.uint8], crc: int | None) -> int:
        """Start a read."""

    def wait(self, ticket: int) -> None:
        """Until it ended. Raises StorageError."""


class DiskRows:
    """A matrix of a pack's dense.bin. Each read is of a tile of 16 rows, or rather of the pages that it touches.

    Making one reads the matrix whole, to check it and to note a checksum for each tile: PackError if it is altered.
    """

    def __init__(self, path: Path, entry: DenseEntry, crc: int, reader: RowReader, file: int = 0) -> None:
        """`file` is what the reader calls the file at `path`."""
        if entry.layout is None:
            raise ValueError(f"{entry.name} is no matrix")
        self._layout, self._offset = entry.layout, entry.offset
        self._reader, self._file = reader, file
        self._tile = MatrixLayout(entry.layout.format, TILE_ROWS, entry.layout.cols, entry.layout.group)
        self._num_tiles = -(-entry.layout.rows // TILE_ROWS)
        span_bytes = max(self._span(tile).stop - self._span(tile).start for tile in range(min(self._num_tiles, 64)))
        self._buffer = aligned_zeros(max(1, BUFFER_BYTES // span_bytes) * span_bytes, BLOCK_ALIGNMENT)
        self._buffer = self._buffer.reshape(-1, span_bytes)
        with closing(PackFile(path)) as source:
            self._crcs = list(self._check(source, entry, crc))

    @property
    def memory(self) -> NDArray[np.uint8]:
        """What tiles are read into."""
        return self._buffer

    def read(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """f32[len(rows), cols]. Raises StorageError."""
        wanted = np.asarray(rows)
        out = np.empty((len(wanted), self._layout.cols), np.float32)
        tiles = np.unique(wanted // TILE_ROWS).tolist()
        for first in range(0, len(tiles), len(self._buffer)):
            for tile, matrix in self._load(tiles[first : first + len(self._buffer)]):
                places = np.flatnonzero(wanted // TILE_ROWS == tile)
                out[places] = dequantize_rows(matrix, wanted[places] % TILE_ROWS)
        return out

    def _load(self, tiles: Sequence[int]) -> Iterator[tuple[int, Matrix]]:
        """Some tiles, at most as many as the buffer holds, all of them read before the first is handed out."""
        tickets = []
        for tile, slot in zip(tiles, self._buffer, strict=False):
            span = self._span(tile)
            tickets.append(self._reader.read(self._file, span.start, slot[: len(span)], self._crcs[tile]))
        failure: StorageError | None = None
        for ticket in tickets:  # every one, or a late read would land in a buffer that is in use again
            try:
                self._reader.wait(ticket)
            except StorageError as error:
                failure = error
        if failure:
            raise failure
        for tile, slot in zip(tiles, self._buffer, strict=False):
            yield tile, self._matrix(tile, slot)

    def _matrix(self, tile: int, pages: NDArray[np.uint8]) -> Matrix:
        layout, rows = self._tile, min(TILE_ROWS, self._layout.rows - tile * TILE_ROWS)
        if not layout.format.is_quantized:  # those are whole tiles, padded
            layout = MatrixLayout(layout.format, rows, layout.cols)
        start = self._offset + tile * self._tile.nbytes - self._span(tile).start
        return Matrix(layout, pages[start : start + layout.nbytes])

    def _span(self, tile: int) -> range:
        """The pages of the file that a tile touches."""
        start = self._offset + tile * self._tile.nbytes
        end = min(start + self._tile.nbytes, self._offset + self._layout.nbytes)
        return range(start // BLOCK_ALIGNMENT * BLOCK_ALIGNMENT, round_up(end, BLOCK_ALIGNMENT))

    def _check(self, source: PackFile, entry: DenseEntry, expected: int) -> Iterator[int]:
        """The checksum of each tile's pages, after the matrix's own was found right."""
        whole, crcs = 0, []
        for first in range(0, self._num_tiles, TILES_PER_CHECK):
            last = min(first + TILES_PER_CHECK, self._num_tiles) - 1
            base, end = self._span(first).start, self._span(last).stop
            pages = np.empty(end - base, np.uint8)
            source.read_into(pages, base)
            source.forget()
            begin = self._offset + first * self._tile.nbytes
            stop = min(self._offset + (last + 1) * self._tile.nbytes, self._offset + entry.nbytes)
            whole = crc32c(pages[begin - base : stop - base], whole)
            for tile in range(first, last + 1):
                span = self._span(tile)
                crcs.append(crc32c(pages[span.start - base : span.stop - base]))
        if whole != expected:
            raise PackError(f"{source.path}: {entry.name} is altered: its checksum does not match")
        yield from crcs
