"""What the dense weights of a model take in RAM, all of them or as few as can be."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from edge.checkpoint.contents import Contents
from edge.disk_rows import BUFFER_BYTES

# One layer computes while the next is being read; a third evens out what the disk and the processor take in turns.
# Measured at 2: see edge/EXPERIMENTS.md, layers that stream.
RING_SLOTS = 3


@dataclass(frozen=True, slots=True)
class DenseSizes:
    """Bytes on disk of all dense weights, and of those that can stay there. By default none can."""

    total: int
    layers: tuple[int, ...] = ()  # of which the matrices can pass through a ring of slots
    vectors: tuple[int, ...] = ()  # what each layer keeps in RAM even then
    embedding: int = 0  # unless it is the head, too

    @classmethod
    def of(cls, contents: Contents) -> Self:
        """Of a pack."""
        layers = [contents.sections[f"layers.{layer}"] for layer in range(contents.config.num_layers)]
        embedding = 0 if contents.config.tie_embeddings else contents.sections["embed_tokens"].nbytes
        return cls(
            total=contents.dense_nbytes,
            layers=tuple(section.nbytes for section in layers),
            vectors=tuple(sum(entry.nbytes for entry in section.entries if entry.layout is None) for section in layers),
            embedding=embedding if embedding > BUFFER_BYTES else 0,
        )

    @property
    def can_stream(self) -> bool:
        """Whether the layers are more than the slots that they would pass through."""
        return len(self.layers) > RING_SLOTS

    @property
    def least(self) -> int:
        """In RAM when everything that can stays on disk."""
        sizes = self.without_embedding() if self.embedding else self
        return min(sizes.total, sizes.resident(range(len(sizes.layers)))) if sizes.can_stream else sizes.total

    def without_embedding(self) -> Self:
        """The same with the embedding on disk and a buffer for its rows instead."""
        return replace(self, total=self.total - self.embedding + BUFFER_BYTES, embedding=0)

    def resident(self, streamed: Sequence[int]) -> int:
        """In RAM when these layers stream: the others, the ring, and the vectors."""
        if not streamed:
            return self.total
        saved = sum(self.layers[layer] - self.vectors[layer] for layer in streamed)
        return self.total - saved + RING_SLOTS * max(self.layers[layer] for layer in streamed)

    def streamed(self, room: int) -> tuple[int, ...]:
        """The fewest layers that have to stream for the rest to fit `room` bytes, which are `least` or more."""
        if self.total <= room:
            return ()
        num_layers = len(self.layers)
        choices = (spread(num_layers, count) for count in range(RING_SLOTS + 1, num_layers + 1))
        return next(layers for layers in choices if self.resident(layers) <= room)


def spread(num_layers: int, count: int) -> tuple[int, ...]:
    """`count` of the layers, as evenly as can be: so that the disk reads while what lies between them computes."""
    return tuple(
        layer for layer in range(num_layers) if (layer + 1) * count // num_layers > layer * count // num_layers
    )
