"""The dense weights of an engine: what of them is in RAM, and what stays on disk because the budget says so."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.budget import MemoryPlan
from edge.checkpoint.contents import Section
from edge.checkpoint.crc_join import joined_crc
from edge.checkpoint.matrix import Matrix
from edge.checkpoint.pack import Pack, Tensor
from edge.dense_stream import DenseStream, StreamedSection
from edge.disk_rows import DiskRows
from edge.kernels import ExpertReader, ReadCounters, crc32c
from edge.profiling import UNTIMED, Watch

EMBEDDING = "embed_tokens"
READER_THREADS = 16


@dataclass(frozen=True, slots=True)
class DenseWeights:
    """Tensors in RAM by name, and the readers of the others; None where there are no others of that kind."""

    tensors: dict[str, Tensor]
    stream: DenseStream | None = None
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
    tensors = pack.load_dense(progress, without=on_disk)
    if not on_disk:
        return DenseWeights(tensors)
    crcs = dict(zip((entry.name for entry in contents.dense), pack.manifest.dense_crcs, strict=True))
    reader = ExpertReader([pack.dense_path], threads=READER_THREADS)
    try:
        stream = embedding = None
        if sections:
            streamed = {
                layer: StreamedSection(section, section_crc(section, crcs)) for layer, section in sections.items()
            }
            stream = DenseStream(streamed, plan.ring_slots, reader, watch)
        if plan.embedding_on_disk:
            entry = contents.sections[EMBEDDING].entries[0]
            embedding = DiskRows(pack.dense_path, entry, crcs[EMBEDDING], reader)
        return DenseWeights(tensors, stream, embedding, reader)
    except BaseException:
        reader.close()
        raise


def section_crc(section: Section, crcs: dict[str, int]) -> int:
    """Of a whole section from those of its tensors: what lies between and after them is zero."""
    crc, end = 0, section.offset
    for entry in section.entries:
        crc = joined_crc(_padded(crc, entry.offset - end), crcs[entry.name], entry.nbytes)
        end = entry.offset + entry.nbytes
    return _padded(crc, section.offset + section.nbytes - end)


def _padded(crc: int, zeros: int) -> int:
    return crc32c(bytes(zeros), crc)
