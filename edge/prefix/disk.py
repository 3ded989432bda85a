"""Snapshots on disk under a budget. Who gives way: edge.prefix.room, a file's use being its time of modification.

Any number of engines may share a directory: each looks at what is there now, a file appears whole under its name, and
who finds one gone computes instead. Two that write at once may exceed the budget by the one's file.
"""

import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from edge.prefix.direct_file import direct_file
from edge.prefix.directory import PrefixDirectory
from edge.prefix.keys import PrefixKeys
from edge.prefix.room import Holding, leaving
from edge.prefix.snapshot import Snapshot, snapshot_pages
from edge.prefix.snapshot_file import HEADER_BYTES, Address, BadFileError, Header, pages_crc

log = structlog.get_logger()

# A directory is listed for every prompt: of a small model, a large budget would hold millions.
MAX_FILES = 4096
# Never taken: a full disk hurts more than a prompt that is computed again.
FREE_BYTES = 1024**3


class _File(NamedTuple):
    address: Address
    nbytes: int
    used_ns: int


@dataclass(frozen=True, slots=True)
class DiskTier:
    """Snapshots of what `identity` stands for, within a directory of at most `budget_bytes`.

    No fault of a file or of the disk is an error of the caller: it is logged, without a word of the prompt, and a file
    at fault is removed. `load` and `save` are for one thread each, which may be two.
    """

    directory: PrefixDirectory
    keys: PrefixKeys
    identity: bytes
    budget_bytes: int

    def sweep(self) -> None:
        """Remove what earlier processes left unfinished, and files that are no snapshots of this directory."""
        try:
            self.directory.remove_unfinished()
            addresses = self.directory.addresses()
        except OSError as error:
            log.warning("prefix_sweep_failed", errno=error.errno)
            return
        for address in addresses:
            self._read(address, None)

    def addresses(self, scope: bytes) -> set[Address]:
        """The snapshots of a scope, some of which may turn out not to be for us."""
        try:
            return {address for address in self.directory.addresses() if address.scope == scope}
        except OSError as error:
            log.warning("prefix_list_failed", errno=error.errno)
            return set()

    def load(self, address: Address, out: NDArray[np.uint8]) -> bool:
        """Fill `out`, the pages of a snapshot, which counts as used now; False if there is none, or none any more."""
        return self._read(address, out)

    def save(self, scope: bytes, name: bytes, snapshot: Snapshot) -> bool:
        """Put a snapshot on disk; False if it cannot be there."""
        address = Address(scope, name, snapshot.length)
        try:
            if address in self.directory.addresses():
                return True
            if not self._make_room(Holding(scope, HEADER_BYTES + snapshot.nbytes)):
                return False
            self._write(address, snapshot.data)
        except OSError as error:
            log.warning("prefix_write_failed", errno=error.errno, bytes=snapshot.nbytes)
            return False
        return True

    def _read(self, address: Address, out: NDArray[np.uint8] | None) -> bool:
        """Check a file's header, or, with `out`, read all of it; whether `out` is filled."""
        try:
            return self._read_checked(address, out)
        except FileNotFoundError:
            return False
        except (OSError, BadFileError) as error:
            reason = str(error) if isinstance(error, BadFileError) else str(error.strerror)
            log.warning("prefix_file_removed", reason=reason)
            with suppress(OSError):  # said already; a file that stays is refused again
                self.directory.remove(address.file_name)
            return False

    def _read_checked(self, address: Address, out: NDArray[np.uint8] | None) -> bool:
        """The same. Raises OSError, BadFileError."""
        head = snapshot_pages(HEADER_BYTES)
        with direct_file(address.file_name, os.O_RDONLY, self.directory.handle) as (handle, file):
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise BadFileError("not a file of ours")
            if found.st_size < HEADER_BYTES:
                raise BadFileError("cut off")
            file.read_into(head, 0)
            header = Header.parse(head, self.keys)
            if header.address != address:
                raise BadFileError("under another's name")
            if found.st_size != HEADER_BYTES + header.data_bytes:
                raise BadFileError("cut off")
            if out is None or header.identity != self.identity:
                return False  # of another model or program: it may be somebody's, and leaves when its room is needed
            if header.data_bytes != len(out):
                raise BadFileError("of another size")
            file.read_into(out, HEADER_BYTES)
            if pages_crc(out) != header.crc:
                raise BadFileError("altered")
            with suppress(OSError):  # a disk that has become read-only: what it holds is as good as before
                os.utime(handle)
        return True

    def _make_room(self, newcomer: Holding) -> bool:
        """Remove files until there is room for another. Raises OSError."""
        files = sorted(self._files(), key=lambda file: file.used_ns)
        holdings = [Holding(file.address.scope, file.nbytes) for file in files]
        gone = leaving(holdings, newcomer, self.budget_bytes, MAX_FILES)
        if gone is None:
            return False
        for place in gone:
            self.directory.remove(files[place].address.file_name)
        disk = os.statvfs(self.directory.handle)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < newcomer.nbytes + FREE_BYTES:
            log.warning("prefix_disk_full", bytes=newcomer.nbytes, free_bytes=free_bytes)
            return False
        return True

    def _files(self) -> list[_File]:
        files = []
        for address in self.directory.addresses():
            with suppress(FileNotFoundError):
                found = os.stat(address.file_name, dir_fd=self.directory.handle, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode):  # what else has such a name takes no room, and may not go like a file
                    files.append(_File(address, found.st_size, found.st_mtime_ns))
        return files

    def _write(self, address: Address, data: NDArray[np.uint8]) -> None:
        """Let the file appear whole under its name. Raises OSError."""
        unfinished = self.directory.new_file_name()
        try:
            with direct_file(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, self.directory.handle) as (handle, file):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # see PrefixDirectory.remove_unfinished
                file.write(data, HEADER_BYTES)
                file.write(Header(self.identity, address, len(data), pages_crc(data)).pages(self.keys), 0)
                file.sync()
                self.directory.rename(unfinished, address.file_name)
        except OSError:
            self.directory.remove(unfinished)
            raise
