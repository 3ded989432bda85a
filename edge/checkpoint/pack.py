"""A packed model on disk: opened after its manifest and file sizes were checked, dense weights loaded whole."""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.checkpoint.contents import DENSE_FILE, TOKENIZER_DIR, TOKENIZER_FILES, DenseEntry
from edge.checkpoint.disk import PackFile, file_crc
from edge.checkpoint.layout import ExpertLayout
from edge.checkpoint.manifest import Manifest, read_manifest, without_mtp
from edge.checkpoint.matrix import Matrix, aligned_zeros
from edge.config import ModelConfig
from edge.errors import PackError
from edge.kernels import crc32c

Tensor = Matrix | NDArray[np.float32]
Progress = Callable[[int], object]  # is given the bytes done since the last call


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack with sound manifest and tokenizer, and files of the right sizes; weights are checked as they are read."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the pack in the directory `path`. Raises PackError naming the file and the field."""
        pack = cls(path, read_manifest(path))
        for file, nbytes in pack.files():
            check_size(file, nbytes)
        pack._check_tokenizer()
        return pack

    def without_mtp(self) -> Self:
        """The same pack as if it had no MTP layer."""
        return replace(self, manifest=without_mtp(self.manifest))

    @property
    def name(self) -> str:
        """The model's name: that of the directory it was converted from."""
        return self.manifest.name

    @property
    def config(self) -> ModelConfig:
        """The model's geometry."""
        return self.manifest.contents.config

    @property
    def experts(self) -> ExpertLayout:
        """How each routed expert is stored. Raises PackError for a model without any."""
        layout = self.manifest.contents.experts
        if layout is None:
            raise PackError(f"{self.path}: a {self.config.family} model has no routed experts")
        return layout

    @property
    def expert_paths(self) -> tuple[Path, ...]:
        """One file per layer, none without experts; expert e starts at e * experts.block_bytes."""
        return tuple(self.path / file for file in self.manifest.contents.expert_files)

    @property
    def dense_path(self) -> Path:
        """The file of all other weights."""
        return self.path / DENSE_FILE

    @property
    def tokenizer_dir(self) -> Path | None:
        """The directory with tokenizer.json, None for a model without a tokenizer."""
        has_tokenizer = any(file.name == "tokenizer.json" for file in self.manifest.tokenizer)
        return self.path / TOKENIZER_DIR if has_tokenizer else None

    def tokenizer_files(self) -> tuple[Path, ...]:
        """What was copied from beside the checkpoint, generation_config.json too."""
        return tuple(self.path / TOKENIZER_DIR / file.name for file in self.manifest.tokenizer)

    def _check_tokenizer(self) -> None:
        """Raise PackError if a file of the tokenizer is altered or new: the text would be plausible nonsense."""
        for added in added_tokenizer_files(self.path, self.manifest):
            raise PackError(f"{added}: added after packing")
        for path, file in zip(self.tokenizer_files(), self.manifest.tokenizer, strict=True):
            if file_crc(path) != (file.nbytes, file.crc):
                raise PackError(f"{path}: altered: its checksum does not match")

    @property
    def dense_nbytes(self) -> int:
        """What the dense weights take, on disk and in memory."""
        return self.manifest.contents.dense_nbytes

    def expert_crc(self, layer: int, expert: int) -> int:
        """CRC-32C of the expert's block."""
        return self.manifest.expert_crcs[layer][expert]

    def files(self) -> Iterator[tuple[Path, int]]:
        """Every file beside the manifest with its size."""
        contents = self.manifest.contents
        yield self.dense_path, contents.dense_nbytes
        yield from ((path, contents.expert_file_nbytes) for path in self.expert_paths)
        yield from ((self.path / TOKENIZER_DIR / file.name, file.nbytes) for file in self.manifest.tokenizer)

    def load_dense(self, progress: Progress | None = None, without: Collection[str] = frozenset()) -> dict[str, Tensor]:
        """The dense tensors but some by name, each checked against its checksum; nothing stays in the page cache.

        Matrices as stored, everything else float32. Raises PackError naming the tensor.
        """
        entries = self.manifest.contents.dense
        ends = [*(entry.offset for entry in entries[1:]), self.dense_nbytes]
        gaps_too = {entry.name: end - entry.offset for entry, end in zip(entries, ends, strict=True)}
        tensors = {}
        for name, tensor in self.dense_tensors(without):
            tensors[name] = tensor
            if progress:
                progress(gaps_too[name])
        if progress:
            progress(sum(gaps_too[name] for name in without))
        return tensors

    def dense_tensors(self, without: Collection[str] = frozenset()) -> Iterator[tuple[str, Tensor]]:
        """The same one at a time, in the order of the file."""
        with closing(PackFile(self.dense_path)) as file:
            for entry, crc in zip(self.manifest.contents.dense, self.manifest.dense_crcs, strict=True):
                if entry.name not in without:
                    yield entry.name, _load(file, entry, crc)

    def read_expert(self, layer: int, expert: int, out: NDArray[np.uint8]) -> None:
        """Fill `out`, of experts.block_bytes, with one expert. For tools: the engine reads with ExpertReader.

        Raises PackError naming the expert if its checksum does not match.
        """
        with closing(PackFile(self.expert_paths[layer])) as file:
            file.read_into(out, expert * self.experts.block_bytes)
        if crc32c(out) != self.expert_crc(layer, expert):
            raise PackError(f"{self.expert_paths[layer]}: expert {expert} is altered: its checksum does not match")


def added_tokenizer_files(path: Path, manifest: Manifest) -> list[Path]:
    """What a tokenizer would read in the pack at `path`, though the manifest does not name it."""
    named = {file.name for file in manifest.tokenizer}
    files = [path / TOKENIZER_DIR / name for name in TOKENIZER_FILES if name not in named]
    return [file for file in files if file.exists()]


def check_size(path: Path, nbytes: int) -> None:
    """Raise PackError unless the file is there and has that size."""
    try:
        actual = path.stat().st_size
    except OSError as error:
        raise PackError(f"{path}: {error.strerror}") from error
    if actual != nbytes:
        raise PackError(f"{path}: {actual} bytes; the manifest says {nbytes}: cut off or altered")


def _load(file: PackFile, entry: DenseEntry, crc: int) -> Tensor:
    data = aligned_zeros(entry.nbytes)
    file.read_into(data, entry.offset)
    file.forget()  # at once: the weights must not stand in memory twice
    if crc32c(data) != crc:
        raise PackError(f"{file.path}: {entry.name} is altered: its checksum does not match")
    if entry.layout:
        return Matrix(entry.layout, data)
    return data.view(np.float32).reshape(entry.shape)
