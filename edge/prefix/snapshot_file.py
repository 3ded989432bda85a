"""The file of one snapshot, version 1: a page of header, then the snapshot's pages as they lie in memory.

Header, little-endian: magic, version, what computed the snapshot, scope, name, length in tokens, bytes of data, their
CRC-32C, and a seal over all this under the directory's secret. It is written last: a file without it is unfinished.
"""

import re
import struct
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from edge.kernels import crc32c
from edge.prefix.direct_file import PIECE_BYTES
from edge.prefix.keys import NAME_BYTES, SCOPE_BYTES, PrefixKeys
from edge.prefix.snapshot import PAGE_BYTES, snapshot_pages

MAGIC = b"flashgate-prefix"
VERSION = 1
IDENTITY_BYTES = 32
HEADER_BYTES = PAGE_BYTES

_FIELDS = struct.Struct(f"<{len(MAGIC)}sI{IDENTITY_BYTES}s{SCOPE_BYTES}s{NAME_BYTES}sQQI")
_FILE_NAME = re.compile(rf"([0-9a-f]{{{2 * SCOPE_BYTES}}})-([0-9]{{1,10}})-([0-9a-f]{{{2 * NAME_BYTES}}})\.prefix")


class Address(NamedTuple):
    """Which snapshot: whose, of which prefix, of how many tokens."""

    scope: bytes
    name: bytes
    length: int

    @property
    def file_name(self) -> str:
        """Its file within the directory."""
        return f"{self.scope.hex()}-{self.length}-{self.name.hex()}.prefix"

    @classmethod
    def of_file(cls, file_name: str) -> Self | None:
        """The reverse; None for a file of another kind."""
        match = _FILE_NAME.fullmatch(file_name)
        return cls(bytes.fromhex(match[1]), bytes.fromhex(match[3]), int(match[2])) if match else None


class BadFileError(Exception):
    """A file that is no snapshot that this program wrote, or no longer: it is removed."""


@dataclass(frozen=True, slots=True)
class Header:
    """`identity` stands for all that the bytes of a snapshot depend on beside the tokens: weights and program."""

    identity: bytes
    address: Address
    data_bytes: int
    crc: int

    def pages(self, keys: PrefixKeys) -> NDArray[np.uint8]:
        """As it stands in the file."""
        address = self.address
        fields = _FIELDS.pack(
            MAGIC, VERSION, self.identity, address.scope, address.name, address.length, self.data_bytes, self.crc
        )
        pages = snapshot_pages(HEADER_BYTES)
        content = np.frombuffer(fields + keys.seal(fields), np.uint8)
        pages[: len(content)] = content
        return pages

    @classmethod
    def parse(cls, pages: NDArray[np.uint8], keys: PrefixKeys) -> Self:
        """The reverse. Raises BadFileError."""
        fields, rest = pages[: _FIELDS.size].tobytes(), pages[_FIELDS.size :].tobytes()
        magic, version, identity, scope, name, length, data_bytes, crc = _FIELDS.unpack(fields)
        if magic != MAGIC or version != VERSION:
            raise BadFileError("of another kind or version")
        if rest[:NAME_BYTES] != keys.seal(fields):
            raise BadFileError("altered header, or another directory's")
        return cls(identity, Address(scope, name, length), data_bytes, crc)


def pages_crc(data: NDArray[np.uint8]) -> int:
    """CRC-32C in pieces: the interpreter's lock is held for one at a time."""
    crc = 0
    for start in range(0, len(data), PIECE_BYTES):
        crc = crc32c(data[start : start + PIECE_BYTES], crc)
    return crc
