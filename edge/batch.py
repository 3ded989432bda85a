"""Which rows of a forward pass belong to which sequence, and how a sequence leaves in the middle of one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.config import ModelConfig
from edge.errors import StorageError
from edge.layers.rotary import Rotation
from edge.prefix.snapshot import Capture
from edge.state import SequenceState

# Token mixers take so many rows at a time: their arrays are the widest of a layer, while the experts, which are read
# once for a whole pass, are what wants many rows. Weights that are in RAM lose nothing by 256 rows at a time.
BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True)
class Segment:
    """The next tokens of one sequence, its state, and the copies to make of it on the way."""

    ids: Sequence[int]
    state: SequenceState
    captures: Sequence[Capture] = ()  # each after another one of these tokens


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one sequence within a block."""

    rows: slice
    start: int  # position in its sequence of the first of them
    state: SequenceState
    capture: Capture | None  # a copy of the state after these rows


@dataclass(frozen=True, slots=True)
class Block:
    """At most BLOCK_ROWS neighbouring rows of a batch."""

    rows: slice
    pieces: tuple[Piece, ...]  # in order, all rows of the block
    rotation: Rotation


class Batch:
    """Segments side by side as rows f32[N, H] of a residual stream; segments are named by their place in the list."""

    def __init__(self, config: ModelConfig, segments: Sequence[Segment], x: NDArray[np.float32]) -> None:
        """`x` holds the embeddings of all ids in order."""
        self.x = x
        self.segments = segments
        self.kept = [index for index, segment in enumerate(segments) if len(segment.ids)]
        self.errors: dict[int, StorageError] = {}  # of the segments that left because their weights could not be read
        self.routing = np.zeros((len(segments), 3))  # what each segment's rows add to RoutingCounts; 0 if not counted
        self._config = config
        self.blocks = self._cut()

    @property
    def has_prompt(self) -> bool:
        """Whether a sequence has more than one row: its rows pass through most experts of a layer."""
        return any(len(self.segments[index].ids) > 1 for index in self.kept)

    def last_rows(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """f32[len(indices), H]: the last row of each of some segments, all of them kept."""
        ends = dict(self._ends())
        return self.x[[ends[index] - 1 for index in indices]]

    def count(self, routing: NDArray[np.float64]) -> None:
        """Put down to the segments what their rows [N, 3] add to RoutingCounts."""
        begin = 0
        for index, end in self._ends():
            self.routing[index] += routing[begin:end].sum(0)
            begin = end

    def drop(self, leaving: Collection[int]) -> None:
        """Take the rows of some segments out; what is no longer there is passed over."""
        if not any(index in leaving for index in self.kept):
            return
        stays = np.zeros(len(self.x), bool)
        for index, end in self._ends():
            stays[end - len(self.segments[index].ids) : end] = index not in leaving
        self.x = self.x[stays]
        self.kept = [index for index in self.kept if index not in leaving]
        self.blocks = self._cut()

    def fail(self, rows: Mapping[int, StorageError]) -> None:
        """Take out the segments to which `rows` belong, remembering why."""
        if not rows:
            return
        for index, end in self._ends():
            begin = end - len(self.segments[index].ids)
            error = next((error for row, error in rows.items() if begin <= row < end), None)
            if error is not None:
                self.errors[index] = error
        self.drop(self.errors)

    def finish(self) -> None:
        """The pass is done: the sequences that are still there have grown."""
        for index in self.kept:
            self.segments[index].state.length += len(self.segments[index].ids)

    def _ends(self) -> Iterator[tuple[int, int]]:
        """Each kept segment and the row after its last."""
        end = 0
        for index in self.kept:
            end += len(self.segments[index].ids)
            yield index, end

    def _cut(self) -> list[Block]:
        blocks, begin, pieces = [], 0, list[Piece]()
        row = 0
        for index in self.kept:
            segment = self.segments[index]
            start = segment.state.length
            end = start + len(segment.ids)
            captures = {capture.length: capture for capture in segment.captures}
            while start < end:
                stop = min([begin + BLOCK_ROWS - row + start, end, *(at for at in captures if at > start)])
                count = stop - start
                rows = slice(row - begin, row - begin + count)
                pieces.append(Piece(rows, start, segment.state, captures.get(stop)))
                start, row = stop, row + count
                if row == begin + BLOCK_ROWS:
                    blocks.append(self._block(begin, pieces))
                    begin, pieces = row, []
        return [*blocks, self._block(begin, pieces)] if pieces else blocks

    def _block(self, begin: int, pieces: list[Piece]) -> Block:
        positions = [np.arange(piece.start, piece.start + piece.rows.stop - piece.rows.start) for piece in pieces]
        rotation = Rotation.at(self._config, np.concatenate(positions))
        return Block(slice(begin, begin + pieces[-1].rows.stop), tuple(pieces), rotation)


def joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The rows of all pieces of a block below each other."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
