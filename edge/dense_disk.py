"""The dense weights of an engine: what of them is in RAM, and what stays on disk because the budget says so."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.budget import MemoryPlan
from edge.checkpoint.contents import DenseEntry, Section
from edge.checkpoint.crc_join import joined_crc
from edge.checkpoint.disk import PackFile
from edge.checkpoint.layout import BLOCK_ALIGNMENT, TILE_ROWS, round_up
from edge.checkpoint.matrix import Matrix
from edge.checkpoint.pack import Pack, Tensor
from edge.dense_stream import DenseStream, StreamedSection
from edge.disk_rows import DiskRows
from edge.errors import PackError
from edge.kernels import ExpertReader, ReadCounters, crc32c
from edge.layers.head import StreamedHead
from edge.profiling import UNTIMED, Watch

EMBEDDING = "embed_tokens"
READER_THREADS = 16


@dataclass(frozen=True, slots=True)
class DenseWeights:
    """Tensors in RAM by name, and the readers of the others; None where there are no others of that kind."""

    tensors: dict[str, Tensor]
    stream: DenseStream | None = None
    head: StreamedHead | None = None
    embedding: DiskRows | None = None
    reader: ExpertReader | None = None

    @property
    def arrays(self) -> list[NDArray[np.generic]]:
        """All their memory."""
        resident = [tensor.data if isinstance(tensor, Matrix) else tensor for tensor in self.tensors.values()]
        on_disk = [part.memory for part in (self.stream, self.embedding) if part]
        return [*resident, *on_disk]

    def counters(self) -> ReadCounters:
        """What was read while computing."""
        return self.reader.counters() if self.reader else ReadCounters()

    def close(self) -> None:
        """End the reading threads."""
        if self.stream:
            self.stream.close()
        if self.reader:
            self.reader.close()


def load_dense(pack: Pack, plan: MemoryPlan, progress: Callable[[int], object], watch: Watch = UNTIMED) -> DenseWeights:
    """What `plan` has in RAM, and readers of the rest. Raises PackError, StorageError."""
    contents = pack.manifest.contents
    sections = {layer: contents.sections[f"layers.{layer}"] for layer in plan.streamed_layers}
    on_disk = {entry.name for section in sections.values() for entry in section.entries if entry.layout}
    if plan.embedding_on_disk:
        on_disk.add(EMBEDDING)
    head_name = EMBEDDING if pack.config.tie_embeddings else "lm_head"
    if plan.head_streams:
        on_disk.add(head_name)
    tensors = pack.load_dense(progress, without=on_disk)
    if not on_disk:
        return DenseWeights(tensors)
    crcs = dict(zip((entry.name for entry in contents.dense), pack.manifest.dense_crcs, strict=True))
    reader = ExpertReader([pack.dense_path], threads=READER_THREADS)
    try:
        stream = head = embedding = None
        if sections:
            parts = {layer: StreamedSection(section, section_crc(section, crcs)) for layer, section in sections.items()}
            blocks = dict[int, StreamedSection]()
            if plan.head_streams:
                most = max(section.nbytes for section in sections.values())
                entry = contents.sections[head_name].entries[0]
                blocks = dict(enumerate(head_blocks(pack, entry, crcs[head_name], most), pack.config.num_layers))
            stream = DenseStream({**parts, **blocks}, plan.ring_slots, reader, watch)
            if blocks:
                head = StreamedHead(stream, list(blocks))
        if plan.embedding_on_disk:
            entry = contents.sections[EMBEDDING].entries[0]
            embedding = DiskRows(pack.dense_path, entry, crcs[EMBEDDING], reader)
        return DenseWeights(tensors, stream, head, embedding, reader)
    except BaseException:
        reader.close()
        raise


def head_blocks(pack: Pack, entry: DenseEntry, crc: int, most_bytes: int) -> Iterator[StreamedSection]:
    """Blocks of whole tiles of a matrix, each on pages of at most `most_bytes`. Raises PackError if it is altered.

    The matrix is read twice, to check it and for a checksum of each block's pages.
    """
    if entry.layout is None:
        raise ValueError(f"{entry.name} is no matrix")
    layout, tile_bytes = entry.layout, replace(entry.layout, rows=TILE_ROWS).nbytes
    rows_at_once = max(1, (most_bytes - 2 * BLOCK_ALIGNMENT) // tile_bytes) * TILE_ROWS
    with closing(PackFile(pack.dense_path)) as file:
        if file.crc(entry.offset, entry.nbytes) != crc:
            raise PackError(f"{file.path}: {entry.name} is altered: its checksum does not match")
        for first in range(0, layout.rows, rows_at_once):
            rows = min(rows_at_once, layout.rows - first)
            block = replace(layout, rows=rows)
            offset = entry.offset + first // TILE_ROWS * tile_bytes
            start = offset // BLOCK_ALIGNMENT * BLOCK_ALIGNMENT
            nbytes = round_up(offset + block.nbytes, BLOCK_ALIGNMENT) - start
            part = DenseEntry(entry.name, (rows, layout.cols), block, offset)
            yield StreamedSection(Section(start, nbytes, (part,)), file.crc(start, nbytes))


def section_crc(section: Section, crcs: dict[str, int]) -> int:
    """Of a whole section from those of its tensors: what lies between and after them is zero."""
    crc, end = 0, section.offset
    for entry in section.entries:
        crc = joined_crc(_padded(crc, entry.offset - end), crcs[entry.name], entry.nbytes)
        end = entry.offset + entry.nbytes
    return _padded(crc, section.offset + section.nbytes - end)


def _padded(crc: int, zeros: int) -> int:
    return crc32c(bytes(zeros), crc)
