"""The directory that snapshots are kept in: private to one user, locked while an engine uses it, with a secret."""

import fcntl
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from edge.errors import PrefixDirectoryError
from edge.prefix.keys import SECRET_BYTES
from edge.prefix.snapshot_file import Address

SECRET_FILE = "secret"  # noqa: S105 -- a file's name
_UNFINISHED = ".unfinished"


class PrefixDirectory:
    """An open directory, made if it is not there. Any number of engines share it; `alone` waits for none of them.

    Raises: PrefixDirectoryError saying what is wrong with it: somebody else's, open to others, of other contents,
    in use if `alone`, or not to be read or written.
    """

    def __init__(self, path: Path, *, alone: bool = False) -> None:
        self.path = path
        try:
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            self.handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise PrefixDirectoryError(f"{path}: {error.strerror}") from error
        try:
            self._check_private()
            self._lock(alone=alone)
            self.secret = self._read_secret()
        except OSError as error:
            self.close()
            raise PrefixDirectoryError(f"{path}: {error.strerror}") from error
        except PrefixDirectoryError:
            self.close()
            raise

    def close(self) -> None:
        """Unlock it; nothing else may be called afterwards."""
        os.close(self.handle)

    def addresses(self) -> list[Address]:
        """The snapshots there now, by their files' names alone. Raises OSError."""
        return [address for name in self._names() if (address := Address.of_file(name))]

    def remove(self, file_name: str) -> None:
        """Remove a file, which another engine may have done already. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(file_name, dir_fd=self.handle)

    def rename(self, old: str, new: str) -> None:
        """Give a file its name, in place of what had it. Raises OSError."""
        os.rename(old, new, src_dir_fd=self.handle, dst_dir_fd=self.handle)

    def new_file_name(self) -> str:
        """A name for a file that is not finished: nobody else's, and recognised by `remove_unfinished`."""
        return secrets.token_hex(16) + _UNFINISHED

    def unfinished(self) -> list[str]:
        """The files that somebody writes, or wrote when he died. Raises OSError."""
        return [name for name in self._names() if name.endswith(_UNFINISHED)]

    def remove_unfinished(self) -> None:
        """Remove what dead processes left: who writes a file holds its lock. Raises OSError."""
        for name in self.unfinished():
            with suppress(FileNotFoundError, BlockingIOError):
                handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.handle)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self.remove(name)
                finally:
                    os.close(handle)

    def clear(self) -> int:
        """Remove all snapshots and the secret, without which no copy of them has a meaning; how many they were."""
        addresses = self.addresses()
        for name in [*(address.file_name for address in addresses), *self.unfinished(), SECRET_FILE]:
            self.remove(name)
        return len(addresses)

    def _names(self) -> list[str]:
        with os.scandir(self.handle) as entries:
            return [entry.name for entry in entries]

    def _check_private(self) -> None:
        found = os.fstat(self.handle)
        if found.st_uid != os.geteuid():
            raise PrefixDirectoryError(f"{self.path} belongs to user {found.st_uid}: it must be your own")
        if stat.S_IMODE(found.st_mode) & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise PrefixDirectoryError(f"{self.path} is open to other users (mode {mode:o}): chmod 700 {self.path}")

    def _lock(self, *, alone: bool) -> None:
        try:
            fcntl.flock(self.handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = "an engine uses it: stop it first" if alone else "it is being cleared"
            raise PrefixDirectoryError(f"{self.path}: {who}") from error

    def _read_secret(self) -> bytes:
        names = self._names()
        if SECRET_FILE not in names:
            # A mistyped path must not fill somebody's documents with our files.
            if any(not name.endswith(_UNFINISHED) for name in names):
                raise PrefixDirectoryError(f"{self.path} holds other files: name a directory that is empty or new")
            self._make_secret()
        handle = os.open(SECRET_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.handle)
        try:
            found, content = os.fstat(handle), os.read(handle, SECRET_BYTES + 1)
        finally:
            os.close(handle)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077 or len(content) != SECRET_BYTES:
            text = "is not as it was made: `flashgate-edge prefix clear` makes the directory new"
            raise PrefixDirectoryError(f"{self.path / SECRET_FILE} {text}")
        return content

    def _make_secret(self) -> None:
        """Let the secret appear whole, and only once, whoever else does the same now."""
        name = self.new_file_name()
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.handle)
        try:
            os.write(handle, secrets.token_bytes(SECRET_BYTES))
            os.fsync(handle)
            with suppress(FileExistsError):
                os.link(name, SECRET_FILE, src_dir_fd=self.handle, dst_dir_fd=self.handle)
        finally:
            os.close(handle)
            self.remove(name)
