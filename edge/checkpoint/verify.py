"""Re-reads every byte of a pack that a checksum covers and says what is wrong with each piece."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.checkpoint.contents import DENSE_FILE, TOKENIZER_DIR, expert_file
from edge.checkpoint.disk import PackFile
from edge.checkpoint.manifest import Manifest, read_manifest
from edge.checkpoint.pack import Progress, added_tokenizer_files
from edge.errors import PackError


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of a file that has one checksum."""

    what: str
    offset: int
    nbytes: int
    crc: int


class Verification:
    """A pass over the pack at `path`. Raises PackError if the manifest itself cannot be trusted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._manifest = read_manifest(path)

    @property
    def nbytes(self) -> int:
        """All that will be read."""
        return sum(piece.nbytes for _, _, pieces in _files(self._manifest) for piece in pieces)

    def run(self, progress: Progress) -> Iterator[str]:
        """One line for each file or piece that is missing, cut off, unreadable or altered."""
        for name, nbytes, pieces in _files(self._manifest):
            try:
                file = PackFile(self._path / name)
            except PackError as error:
                yield str(error)
                continue
            try:
                yield from _check_file(file, nbytes, pieces, progress)
            finally:
                file.close()
        yield from (f"{file}: added after packing" for file in added_tokenizer_files(self._path, self._manifest))


def _check_file(file: PackFile, nbytes: int, pieces: list[Piece], progress: Progress) -> Iterator[str]:
    if file.nbytes != nbytes:
        yield f"{file.path}: {file.nbytes} bytes; the manifest says {nbytes}"
    file.forget()  # so that the disk is read, and not what the page cache remembers of it
    for piece in pieces:
        if piece.offset + piece.nbytes <= file.nbytes:
            try:
                if file.crc(piece.offset, piece.nbytes) != piece.crc:
                    yield f"{file.path}: {piece.what} is altered: its checksum does not match"
            except PackError as error:
                yield f"{piece.what}: {error}"
        else:
            yield f"{file.path}: {piece.what} is not all there"
        progress(piece.nbytes)


def _files(manifest: Manifest) -> Iterator[tuple[str, int, list[Piece]]]:
    """Name, size and pieces of each file."""
    contents = manifest.contents
    dense = zip(contents.dense, manifest.dense_crcs, strict=True)
    pieces = [Piece(f"tensor {entry.name}", entry.offset, entry.nbytes, crc) for entry, crc in dense]
    yield DENSE_FILE, contents.dense_nbytes, pieces
    block_bytes = contents.block_bytes
    for layer, crcs in enumerate(manifest.expert_crcs):
        pieces = [
            Piece(f"layer {layer} expert {expert}", expert * block_bytes, block_bytes, crc)
            for expert, crc in enumerate(crcs)
        ]
        yield expert_file(layer), contents.expert_file_nbytes, pieces
    for file in manifest.tokenizer:
        yield f"{TOKENIZER_DIR}/{file.name}", file.nbytes, [Piece("the file", 0, file.nbytes, file.crc)]
