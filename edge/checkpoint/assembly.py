"""A pack's files in a workspace: what both makers of packs share, a conversion and a synthesis."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge.checkpoint.contents import DENSE_FILE, MANIFEST_FILE, Contents
from edge.checkpoint.manifest import Manifest, dump_manifest
from edge.checkpoint.matrix import Bytes
from edge.checkpoint.workspace import Workspace
from edge.errors import CheckpointError
from edge.kernels import crc32c

MANIFEST_ROOM = 2**20  # of free space, for the manifest, the journal and the like


def data_files(contents: Contents) -> dict[str, int]:
    """The files of model data with their sizes."""
    return {DENSE_FILE: contents.dense_nbytes, **dict.fromkeys(contents.expert_files, contents.expert_file_nbytes)}


def forget_altered_files(workspace: Workspace, files: Mapping[str, int]) -> None:
    """A file that is noted as finished but has not its size now is made again."""
    for file, nbytes in files.items():
        if file in workspace.finished and size_of(workspace.path / file) != nbytes:
            del workspace.finished[file]


def check_room(workspace: Workspace, files: Mapping[str, int], out: Path) -> None:
    """Raise CheckpointError if the disk has no room for what is missing of `files`."""
    missing = (nbytes - min(size_of(workspace.path / file), nbytes) for file, nbytes in files.items())
    check_free(workspace.path, sum(missing) + MANIFEST_ROOM, out)


def check_free(directory: Path, needed: int, out: Path) -> None:
    """Raise CheckpointError if the disk of `directory` has no room for `needed` bytes of `out`."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise CheckpointError(f"{out} needs {needed} bytes more; {free} are free on its disk")


def write_pieces(file: BinaryIO, pieces: Iterable[Bytes]) -> tuple[int, int]:
    """Write them one after the other; their size and CRC-32C."""
    nbytes = crc = 0
    for piece in pieces:
        crc = crc32c(piece, crc)
        nbytes += file.write(piece.data)
    return nbytes, crc


def write_manifest(workspace: Workspace, manifest: Manifest) -> None:
    """The last file before `publish`."""
    with (workspace.path / MANIFEST_FILE).open("wb") as file:
        file.write(dump_manifest(manifest))
        sync_file(file)


def sync_file(file: BinaryIO) -> None:
    """Put a file's data on disk and let the page cache forget it."""
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def size_of(path: Path) -> int:
    """0 for a file that is not there."""
    return path.stat().st_size if path.is_file() else 0


@contextmanager
def explained_io(out: Path) -> Iterator[None]:
    """Turns what the operating system refuses into one line; what was finished stays, for the next run."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename
        what = f"{where}: {error.strerror}" if where else error.strerror
        raise CheckpointError(f"writing {out}: {what}; once that is mended, run again to go on") from error
