"""One *.safetensors file: its table, read strictly, and slices of its tensors; and a writer that streams.

Own code and not the safetensors package: slices go into our buffers with pread, bf16 needs no framework, and every
fault names file and tensor. Format: https://huggingface.co/docs/safetensors (8 bytes header size, JSON table, data).
"""

import hashlib
import json
import math
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.layout import Format
from edge.errors import CheckpointError
from edge.quant.floats import STORED_DTYPES

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors package
DTYPES = {"F32": Format.F32, "F16": Format.F16, "BF16": Format.BF16}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A row of the table. `start` is absolute in the file. `dtype` is the file's word, perhaps one we cannot read."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


class TensorFile:
    """An open file. `read_rows` may be called from several threads.

    Raises: CheckpointError naming the file, and the tensor where it is one, for whatever is wrong with it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror}") from error
        try:
            self.nbytes = os.fstat(self._file.fileno()).st_size
            header = self._read_header()
            self.header_sha256 = hashlib.sha256(header).hexdigest()
            self.tensors = self._parse(header)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file; idempotent."""
        self._file.close()

    def modified_ns(self) -> int:
        """When the open file, whatever its path names by now, was last written."""
        return os.fstat(self._file.fileno()).st_mtime_ns

    def read_rows(self, name: str, start: int, count: int) -> NDArray[Any]:
        """Rows of the tensor seen as [everything before the last dimension, the last]: [count, last].

        float32, float16, or uint16 that are bf16 patterns.
        """
        entry = self.tensors[name]
        form = DTYPES[entry.dtype]
        cols = entry.shape[-1]
        rows = np.empty((count, cols), STORED_DTYPES[form])
        offset = entry.start + start * cols * rows.itemsize
        if start < 0 or offset + rows.nbytes > entry.start + entry.nbytes:
            raise ValueError(f"rows {start} to {start + count} of {name} {entry.shape}")
        self._read_into(rows.data.cast("B"), offset, name)
        return rows

    def _read_into(self, buffer: memoryview, offset: int, what: str) -> None:
        done = 0
        while done < len(buffer):
            try:
                got = os.preadv(self._file.fileno(), [buffer[done:]], offset + done)
            except OSError as error:
                raise CheckpointError(f"{self.path}: reading {what}: {error.strerror}") from error
            if got == 0:
                raise CheckpointError(f"{self.path}: {what} ends early, at byte {offset + done} of the file")
            done += got

    def _read_header(self) -> bytes:
        if self.nbytes < 8:
            raise CheckpointError(f"{self.path}: {self.nbytes} bytes; too short for a safetensors file")
        prefix = bytearray(8)
        self._read_into(memoryview(prefix), 0, "the header size")
        (size,) = struct.unpack("<Q", prefix)
        if size > min(MAX_HEADER_BYTES, self.nbytes - 8):
            raise CheckpointError(
                f"{self.path}: a header of {size} bytes in a file of {self.nbytes}; cut off or corrupt"
            )
        header = bytearray(size)
        self._read_into(memoryview(header), 8, "the header")
        return bytes(header)

    def _parse(self, header: bytes) -> dict[str, TensorEntry]:
        try:
            table = json.loads(header, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.path}: the header is not a safetensors table: {error}") from error
        if not isinstance(table, dict):
            raise CheckpointError(f"{self.path}: the header is not a safetensors table")
        table.pop("__metadata__", None)
        data_start = 8 + len(header)
        tensors = {name: self._entry(name, value, data_start) for name, value in table.items()}
        end = data_start
        for name, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].nbytes)):
            if entry.start != end:
                raise CheckpointError(f"{self.path}: {name} starts at byte {entry.start}; the one before ends at {end}")
            end += entry.nbytes
        if end != self.nbytes:
            raise CheckpointError(f"{self.path}: its tensors end at byte {end}, the file at {self.nbytes}; cut off?")
        return tensors

    def _entry(self, name: str, value: Any, data_start: int) -> TensorEntry:
        match value:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
                valid = all(type(size) is int and size >= 0 for size in shape) and 0 <= start <= end
            case _:
                valid = False
        if not valid:
            raise CheckpointError(f"{self.path}: {name} has a malformed entry in the header")
        if dtype in DTYPES and math.prod(shape) * DTYPES[dtype].bits // 8 != end - start:
            raise CheckpointError(f"{self.path}: {name} is {dtype} {shape} but has {end - start} bytes")
        return TensorEntry(dtype, tuple(shape), data_start + start, end - start)


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor about to be written."""

    form: Format
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of its data."""
        return math.prod(self.shape) * self.form.bits // 8


class TensorFileWriter:
    """Writes a file whose tensors are all known by shape; their data follows in the same order, in pieces."""

    def __init__(self, file: BinaryIO, tensors: Mapping[str, NewTensor]) -> None:
        table: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses a file without it
        end = 0
        for name, tensor in tensors.items():
            start, end = end, end + tensor.nbytes
            table[name] = {"dtype": tensor.form.name, "shape": list(tensor.shape), "data_offsets": [start, end]}
        header = json.dumps(table, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)  # so that data starts aligned
        self._file = file
        self._file.write(struct.pack("<Q", len(header)) + header)
        self._left = end

    def write(self, data: NDArray[Any]) -> None:
        """The next elements, in the stored type."""
        self._left -= data.nbytes
        self._file.write(np.ascontiguousarray(data).data)

    def finish(self) -> None:
        """Check that every byte announced was written."""
        if self._left:
            raise ValueError(f"{self._left} bytes fewer written than announced")


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"{key} stands twice")
        table[key] = value
    return table
