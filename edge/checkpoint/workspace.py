"""The directory in which a pack grows until it is whole: locked, resumable, then renamed into place.

A pack OUT grows in OUT.partial beside it. Its journal names each finished file with what the manifest needs of it; a
line is written only after that file is on disk, so whatever a killed run left can be told from what it finished.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge.checkpoint.contents import MANIFEST_FILE
from edge.checkpoint.json_file import read_object
from edge.checkpoint.manifest import KIND
from edge.errors import CheckpointError

JOURNAL_FILE = "journal.jsonl"


class Workspace:
    """OUT.partial, locked by this process. `finished` maps a file's name to what was noted of it, by earlier runs too.

    `key` says what is being made: a journal with another key is of other work, and is discarded.
    Raises: CheckpointError if OUT or OUT.partial belongs to somebody else, or another process works on it.
    """

    def __init__(self, out: Path, key: Mapping[str, Any], *, force: bool) -> None:
        self._out = out.resolve()
        if not self._out.name:
            raise CheckpointError(f"{out} is the root of all files; choose another place")
        self._force = force
        self._key = dict(key)
        self.path = self._out.with_name(self._out.name + ".partial")
        self.finished: dict[str, Any] = {}

    def __enter__(self) -> Self:
        _check_replaceable(self._out, force=self._force)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as on_error:
            self._lock = _lock_directory(self.path, self._out)
            on_error.callback(os.close, self._lock)
            _check_replaceable(self._out, force=self._force)  # again: who held the lock may have made it
            self._open_journal()
            on_error.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        if error and not self.finished:  # nothing worth going on with
            _empty(self.path, last=JOURNAL_FILE)
            self.path.rmdir()
        os.close(self._lock)

    def finish(self, file: str, note: Any) -> None:
        """Note that a file, given from the workspace's path, is whole and on disk."""
        self.finished[file] = note  # first: an interrupt between the two must not pass for nothing done, and clear it
        self._append({"file": file, "note": note})

    def publish(self) -> None:
        """Let OUT be this directory, whose files are all on disk."""
        sync_directory(self.path)
        old = self._out.with_name(self._out.name + ".replaced")
        if _is_pack(self._out):
            # Two renames: for a moment OUT is missing, never half there. A run killed between them is resumed by the
            # next, which finds every file finished.
            _remove_pack(old)
            self._out.rename(old)
        self.path.rename(self._out)
        sync_directory(self._out.parent)
        (self._out / JOURNAL_FILE).unlink()
        _remove_pack(old)

    def _open_journal(self) -> None:
        journal = self.path / JOURNAL_FILE
        if not journal.exists() and any(self.path.iterdir()):
            raise CheckpointError(f"{self.path} is in the way and holds no work to go on with; move it away")
        lines, nbytes = _read_lines(journal)
        if not lines or lines[0] != self._key:
            _empty(self.path, last=JOURNAL_FILE)
            lines, nbytes = [], 0
        self._journal = journal.open("ab")
        self._journal.truncate(nbytes)  # without a last line that was cut off
        if not lines:
            self._append(self._key)
            sync_directory(self.path)
        self.finished = {line["file"]: line["note"] for line in lines[1:]}

    def _append(self, line: Mapping[str, Any]) -> None:
        self._journal.write(json.dumps(line).encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())


def sync_directory(path: Path) -> None:
    """Put a directory's entries on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_replaceable(out: Path, *, force: bool) -> None:
    if _is_pack(out):
        if not force:
            raise CheckpointError(f"{out} exists; --force replaces it")
    elif out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(f"{out} exists and is not a packed model; choose another place")


def _is_pack(path: Path) -> bool:
    manifest = path / MANIFEST_FILE
    try:
        return manifest.is_file() and read_object(manifest).get("format") == KIND
    except CheckpointError:
        return False


def _lock_directory(path: Path, out: Path) -> int:
    """Make `path` if need be and lock it: the lock dies with the process. A handle to close."""
    while True:
        path.mkdir(exist_ok=True)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise CheckpointError(f"{out}: another process is writing it") from error
        if path.exists() and path.samefile(f"/proc/self/fd/{handle}"):
            return handle
        os.close(handle)  # it became OUT between our opening and locking it


def _read_lines(journal: Path) -> tuple[list[Any], int]:
    """The whole lines of a journal and how many bytes they take; nothing from the first damaged one on."""
    lines: list[Any] = []
    nbytes = 0
    for line in journal.read_bytes().splitlines(keepends=True) if journal.exists() else ():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not line.endswith(b"\n") or (lines and not _is_note(value)):
            break
        lines.append(value)
        nbytes += len(line)
    return lines, nbytes


def _is_note(line: Any) -> bool:
    return isinstance(line, dict) and line.keys() == {"file", "note"} and isinstance(line["file"], str)


def _remove_pack(path: Path) -> None:
    if _is_pack(path):
        _empty(path, last=MANIFEST_FILE)
        path.rmdir()


def _empty(path: Path, *, last: str) -> None:
    """Delete what is in a directory. `last`, by which we know it as ours, goes last: a kill leaves it recognisable."""
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == last):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
