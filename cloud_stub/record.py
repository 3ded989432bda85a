"""The record of everything received, one JSON line per request: what the leak tests read.

It holds requests in full, credentials included, because anything that reached a cloud is a finding there.
"""

import json
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

from cloud_stub.errors import RecordError, StartError

# Whoever may read the record may read every prompt.
_MODE = 0o600


class Record:
    """Appends lines to one file. Thread-safe; several processes may share the file."""

    def __init__(self, path: Path) -> None:
        """Open or create `path`, readable by its owner only. Raises StartError."""
        self._path = path
        self._lock = threading.Lock()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        except OSError as exc:
            raise StartError(f"--record {path}: {exc.strerror}") from exc
        try:
            # A device or pipe has neither a last line nor a mode to set.
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.fchmod(self._fd, _MODE)
                self._end_torn_line()
        except OSError as exc:
            os.close(self._fd)
            raise StartError(f"--record {path}: {exc.strerror}") from exc

    def append(self, entry: Mapping[str, object]) -> None:
        """Write one line and wait until it is on the disk. Raises RecordError."""
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        with self._lock:
            try:
                _write_all(self._fd, line)
                os.fsync(self._fd)
            except OSError as exc:
                raise RecordError(f"the record {self._path} cannot be written: {exc.strerror}") from exc

    def close(self) -> None:
        with self._lock:
            os.close(self._fd)

    def _end_torn_line(self) -> None:
        """A stub killed while it wrote leaves half a line; the next one must not be glued to it."""
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            _write_all(self._fd, b"\n")


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
