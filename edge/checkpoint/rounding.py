"""Weights as they are, or rounded to the nearest that fewer bits can say: each by itself, without calibration."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np

from edge.checkpoint.assembly import sync_file, write_pieces
from edge.checkpoint.contents import DENSE_FILE, Contents, DenseEntry
from edge.checkpoint.encode import encoding
from edge.checkpoint.in_order import in_order, num_threads
from edge.checkpoint.layout import ExpertLayout
from edge.checkpoint.matrix import Bytes
from edge.checkpoint.names import Part, dense_tensors
from edge.checkpoint.pack import Progress
from edge.checkpoint.source import Checkpoint, SourceMatrix
from edge.checkpoint.source_sizes import dense_bytes, expert_bytes, layer_bytes
from edge.checkpoint.workspace import Workspace, sync_directory
from edge.kernels import crc32c


class RoundedWeights:
    """Writes a pack's dense weights, then its experts layer by layer; an earlier run's finished files are kept."""

    def __init__(self, checkpoint: Checkpoint, contents: Contents, workspace: Workspace) -> None:
        self._checkpoint, self._contents, self._workspace = checkpoint, contents, workspace

    @property
    def finished_bytes(self) -> int:
        """Of the checkpoint, what an earlier run that was stopped has finished."""
        finished = self._workspace.finished
        layers = enumerate(self._contents.expert_files)
        experts = sum(layer_bytes(self._checkpoint, layer) for layer, file in layers if file in finished)
        return experts + (dense_bytes(self._checkpoint) if DENSE_FILE in finished else 0)

    def run(self, progress: Progress) -> None:
        """Do what is left to do. `progress` is given the source bytes packed since its last call."""
        path, finished = self._workspace.path, self._workspace.finished
        if DENSE_FILE not in finished:
            self._workspace.finish(DENSE_FILE, self._write_dense(path / DENSE_FILE, progress))
        if self._contents.experts:
            for layer, file in enumerate(self._contents.expert_files):
                if file not in finished:
                    crcs = self._write_layer(layer, self._contents.experts, path / file, progress)
                    self._workspace.finish(file, crcs)

    def _write_dense(self, path: Path, progress: Progress) -> list[int]:
        """The checksums of the dense tensors."""
        crcs = []
        with path.open("wb") as file, closing(in_order(self._dense_jobs(), num_threads())) as pieces:
            file.truncate(self._contents.dense_nbytes)  # gaps read as zero
            for (source, entry), group in groupby(pieces, key=itemgetter(0)):
                file.seek(entry.offset)
                _, crc = write_pieces(file, (piece for _, piece in group))
                crcs.append(crc)
                progress(source.nbytes)
            sync_file(file)
        return crcs

    def _dense_jobs(self) -> Iterator[tuple[tuple[SourceMatrix, DenseEntry], Callable[[], Bytes]]]:
        for tensor, entry in zip(dense_tensors(self._contents.config), self._contents.dense, strict=True):
            source = self._checkpoint.dense(tensor)
            yield from (((source, entry), job) for job in encoding(source, entry.layout))

    def _write_layer(self, layer: int, layout: ExpertLayout, path: Path, progress: Progress) -> list[int]:
        """The checksums of the layer's experts."""
        crcs = []
        with path.open("wb") as file, closing(in_order(self._expert_jobs(layer, layout), num_threads())) as pieces:
            for expert, group in groupby(pieces, key=itemgetter(0)):
                nbytes, crc = write_pieces(file, (piece for _, piece in group))
                padding = np.zeros(layout.block_bytes - nbytes, np.uint8)
                crcs.append(crc32c(padding, crc))
                file.write(padding.data)
                progress(expert_bytes(self._checkpoint, layer, expert))
            sync_file(file)
        sync_directory(path.parent)
        return crcs

    def _expert_jobs(self, layer: int, layout: ExpertLayout) -> Iterator[tuple[int, Callable[[], Bytes]]]:
        """All parts follow each other without gaps: they are multiples of 64 bytes."""
        for expert in range(self._contents.config.num_experts):
            for part in Part:
                source = self._checkpoint.expert(layer, expert, part)
                yield from ((expert, job) for job in encoding(source, getattr(layout, part.value)))
