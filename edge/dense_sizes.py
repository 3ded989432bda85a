"""What the dense weights of a model take in RAM, all of them or as few as can be."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from edge.checkpoint.contents import Contents
from edge.disk_rows import BUFFER_BYTES

# One layer computes while the next is being read; a third evens out what the disk and the processor take in turns.
# Measured at 2: see edge/EXPERIMENTS.md, layers that stream.
RING_SLOTS = 3


@dataclass(frozen=True, slots=True)
class Streaming:
    """What passes through the ring of slots."""

    layers: tuple[int, ...] = ()
    head: bool = False


@dataclass(frozen=True, slots=True)
class DenseSizes:
    """Bytes on disk of all dense weights, and of those that can stay there. By default none can."""

    total: int
    layers: tuple[int, ...] = ()  # of which the matrices can pass through a ring of slots
    vectors: tuple[int, ...] = ()  # what each layer keeps in RAM even then
    embedding: int = 0  # unless it is the head, too
    head: int = 0  # can pass through the slots, too, some rows at a time

    @classmethod
    def of(cls, contents: Contents) -> Self:
        """Of a pack."""
        layers = [contents.sections[f"layers.{layer}"] for layer in range(contents.config.num_layers)]
        is_tied = contents.config.tie_embeddings
        embedding = 0 if is_tied else contents.sections["embed_tokens"].nbytes
        return cls(
            total=contents.dense_nbytes,
            layers=tuple(section.nbytes for section in layers),
            vectors=tuple(sum(entry.nbytes for entry in section.entries if entry.layout is None) for section in layers),
            embedding=embedding if embedding > BUFFER_BYTES else 0,
            head=contents.sections["embed_tokens" if is_tied else "lm_head"].nbytes,
        )

    @property
    def least(self) -> int:
        """In RAM when everything that can stays on disk."""
        sizes = self.without_embedding() if self.embedding else self
        return min((sizes.resident(streaming) for streaming in sizes._choices()), default=sizes.total)

    def without_embedding(self) -> Self:
        """The same with the embedding on disk and a buffer for its rows instead."""
        return replace(self, total=self.total - self.embedding + BUFFER_BYTES, embedding=0)

    def resident(self, streaming: Streaming) -> int:
        """In RAM when these parts stream: the others, the ring, the vectors, and rows of a head that embeds as well."""
        if not streaming.layers:
            return self.total
        saved = sum(self.layers[layer] - self.vectors[layer] for layer in streaming.layers)
        if streaming.head:
            saved += self.head - BUFFER_BYTES
        return self.total - saved + RING_SLOTS * max(self.layers[layer] for layer in streaming.layers)

    def streamed_bytes(self, streaming: Streaming) -> int:
        """Read in each pass."""
        return sum(self.layers[layer] for layer in streaming.layers) + (self.head if streaming.head else 0)

    def streaming(self, room: int) -> Streaming:
        """The fewest bytes that have to stream for the rest to fit `room`, which is `least` or more."""
        fitting = (streaming for streaming in self._choices() if self.resident(streaming) <= room)
        return min(fitting, key=self.streamed_bytes)

    def _choices(self) -> Iterator[Streaming]:
        """All that could be: nothing, or more layers than there are slots, without the head and with it."""
        yield Streaming()
        num_layers = len(self.layers)
        for count in range(RING_SLOTS + 1, num_layers + 1):
            layers = spread(num_layers, count)
            yield Streaming(layers)
            if self.head > BUFFER_BYTES:
                yield Streaming(layers, head=True)


def spread(num_layers: int, count: int) -> tuple[int, ...]:
    """`count` of the layers, as evenly as can be: so that the disk reads while what lies between them computes."""
    return tuple(
        layer for layer in range(num_layers) if (layer + 1) * count // num_layers > layer * count // num_layers
    )
