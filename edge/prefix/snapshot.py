"""A copy of a sequence's state: what all layers hold after its first tokens, in one piece of memory."""

import mmap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.config import ModelConfig
from edge.state import KVCache, SequenceState, fixed_bytes, kv_token_bytes

PAGE_BYTES = mmap.PAGESIZE


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """The state after `length` tokens: `data` is what snapshot_pages makes, filled in the order of state.contents."""

    length: int
    data: NDArray[np.uint8]

    @property
    def nbytes(self) -> int:
        """The memory it takes, whole pages."""
        return len(self.data)

    def restore(self, state: SequenceState) -> None:
        """Put `state`, whatever it held, where the copied one was."""
        for arrays, copies in zip(state.contents(self.length), _views(self.data, state, self.length), strict=True):
            for array, copy in zip(arrays, copies, strict=True):
                array[...] = copy
        state.length = self.length


class Capture:
    """A snapshot in the making, of a state on its way to `length` tokens.

    A DeltaNet layer's state is there only until the next token passes the layer, so each is copied in its moment, and
    so is the last token's hidden state; the rows of KV caches stay and are copied in the end.
    """

    def __init__(self, state: SequenceState, length: int) -> None:
        self.length = length
        self._state = state
        self._data = snapshot_pages(sum(array.nbytes for arrays in state.contents(length) for array in arrays))
        self._copies = _views(self._data, state, length)

    @property
    def nbytes(self) -> int:
        """The memory it takes, whole pages."""
        return len(self._data)

    def take(self, layer: int) -> None:
        """Copy a layer, through which exactly the first `length` tokens have gone."""
        for copy, array in zip(self._copies[layer], self._state.contents(self.length)[layer], strict=True):
            copy[...] = array

    def finish(self) -> Snapshot:
        """The snapshot, once all that passes was taken and the tokens have gone through all layers."""
        for index, layer in enumerate(self._state.layers):
            if isinstance(layer, KVCache):
                self.take(index)
        return Snapshot(self.length, self._data)


def copied(state: SequenceState) -> Snapshot:
    """The snapshot of a state that no pass is moving on."""
    capture = Capture(state, state.length)
    for index, layer in enumerate(state.layers):
        if not isinstance(layer, KVCache):
            capture.take(index)
    return capture.finish()


def snapshot_pages(nbytes: int) -> NDArray[np.uint8]:
    """Zeros for `nbytes`, rounded up to whole pages of their own: they go back to the system as soon as nobody holds
    them, and direct I/O takes them as they are."""
    pages = mmap.mmap(-1, page_aligned(nbytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        # Hundreds of megabytes are filled at once: in pages of 4 KiB, most of the time would go to handing them out.
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)


def page_aligned(nbytes: int) -> int:
    """`nbytes` rounded up to whole pages."""
    return -(-nbytes // PAGE_BYTES) * PAGE_BYTES


def snapshot_bytes(config: ModelConfig, length: int) -> int:
    """The memory that a snapshot after `length` tokens takes."""
    return page_aligned(fixed_bytes(config) + length * kv_token_bytes(config))


def _views(data: NDArray[np.uint8], state: SequenceState, length: int) -> list[Sequence[NDArray[np.float32]]]:
    """The parts of `data` as arrays like those of state.contents, by layer."""
    layers, start = list[Sequence[NDArray[np.float32]]](), 0
    for arrays in state.contents(length):
        copies = []
        for array in arrays:
            copies.append(data[start : start + array.nbytes].view(array.dtype).reshape(array.shape))
            start += array.nbytes
        layers.append(copies)
    return layers
