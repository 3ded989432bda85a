"""Which rows of a forward pass belong to which sequence, and how a sequence leaves in the middle of one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.config import ModelConfig
from edge.errors import StorageError
from edge.layers.rotary import Rotation
from edge.state import SequenceState

# Token mixers take so many rows at a time: their arrays are the widest of a layer, while the experts, which are read
# once for a whole pass, are what wants many rows. Weights that are in RAM lose nothing by 256 rows at a time.
BLOCK_ROWS = 256


class Copy(Protocol):
    """A copy of a sequence's state, made while its tokens pass through the layers."""

    @property
    def length(self) -> int:
        """Of the sequence, when it is made."""

    def take(self, layer: int) -> None:
        """Copy a layer, through which exactly so many tokens have gone."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The next tokens of one sequence, its state, and the copies to make of it on the way.

    The last `num_drafts` of them are guesses. Unless all of it was right, the pass leaves the state after them, while
    its length counts the others alone: see edge.speculation.proposal.
    """

    ids: Sequence[int]
    state: SequenceState
    captures: Sequence[Copy] = ()  # each after another one of these tokens
    num_drafts: int = 0
    at: int | None = None  # position of the first; None: behind what the state holds

    @property
    def start(self) -> int:
        """Position of the first of the tokens."""
        return self.state.length if self.at is None else self.at

    @property
    def num_known(self) -> int:
        """How many are no guesses."""
        return len(self.ids) - self.num_drafts


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one sequence within a block."""

    rows: slice
    start: int  # position in its sequence of the first of them
    state: SequenceState
    capture: Copy | None  # of the state after these rows


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
        self.ids = np.array([id for segment in segments for id in segment.ids], np.int64)  # of the rows
        self.segments = segments
        self._num_rows = {index: len(segment.ids) for index, segment in enumerate(segments) if len(segment.ids)}
        self.errors: dict[int, StorageError] = {}  # of the segments that left because their weights could not be read
        self.routing = np.zeros((len(segments), 3))  # what each segment's rows add to RoutingCounts; 0 if not counted
        self._config = config
        self.blocks = self._cut()

    @property
    def kept(self) -> list[int]:
        """The segments that are still there, rising."""
        return list(self._num_rows)

    @property
    def has_prompt(self) -> bool:
        """Whether a sequence has several rows that are no guesses: they pass through most experts of a layer."""
        return any(self.segments[index].num_known > 1 for index in self.kept)

    def last_rows(self, index: int) -> NDArray[np.float32]:
        """f32[1 + guesses, H]: of a kept segment the last row that is no guess, and the guesses that are left."""
        end, num_rows = dict(self._ends())[index], self._num_rows[index]
        return self.x[end - num_rows + self.segments[index].num_known - 1 : end]

    def count(self, routing: NDArray[np.float64]) -> None:
        """Put down to the segments what their rows [N, 3] add to RoutingCounts."""
        begin = 0
        for index, end in self._ends():
            self.routing[index] += routing[begin:end].sum(0)
            begin = end

    def drop(self, leaving: Collection[int]) -> None:
        """Take the rows of some segments out; what is no longer there is passed over."""
        self._shorten(dict.fromkeys((index for index in self.kept if index in leaving), 0))

    def fail(self, rows: Mapping[int, StorageError]) -> None:
        """Take out the segments to which `rows` belong, remembering why; of guesses only them and those after them."""
        left = dict[int, int]()
        for index, end in self._ends():
            begin = end - self._num_rows[index]
            first = min((row for row in rows if begin <= row < end), default=end)
            if first < begin + self.segments[index].num_known:
                self.errors[index], left[index] = rows[first], 0
            elif first < end:
                left[index] = first - begin
        self._shorten(left)

    def finish(self) -> None:
        """The pass is done: the sequences that are still there have grown."""
        for index in self.kept:
            self.segments[index].state.length += self.segments[index].num_known

    def _shorten(self, left: Mapping[int, int]) -> None:
        """Keep only so many of the first rows of some segments."""
        if not left:
            return
        stays = np.ones(len(self.x), bool)
        for index, end in self._ends():
            if index in left:
                stays[end - self._num_rows[index] + left[index] : end] = False
        self.x, self.ids = self.x[stays], self.ids[stays]
        rows = {index: left.get(index, num_rows) for index, num_rows in self._num_rows.items()}
        self._num_rows = {index: num_rows for index, num_rows in rows.items() if num_rows}
        self.blocks = self._cut()

    def _ends(self) -> Iterator[tuple[int, int]]:
        """Each kept segment and the row after its last."""
        end = 0
        for index, num_rows in self._num_rows.items():
            end += num_rows
            yield index, end

    def _cut(self) -> list[Block]:
        blocks, begin, pieces = [], 0, list[Piece]()
        row = 0
        for index in self.kept:
            segment = self.segments[index]
            start = segment.start
            end = start + self._num_rows[index]
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
