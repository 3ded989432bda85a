"""DeltaNet states to go back to. KV caches need none: what lies behind a sequence's length is written over."""

from collections.abc import MutableMapping

import numpy as np

from edge.state import DeltaState, SequenceState


class Savepoint:
    """The DeltaNet states of a sequence after `length` tokens, each copied when that many have gone through its layer.

    A layer's copy costs one write of its state, 4 MB at the 397B's size; going back only swaps the two.
    """

    def __init__(self, state: SequenceState, length: int, spare: MutableMapping[int, DeltaState]) -> None:
        """`spare`: one of the state's, which this alone uses until the pass and its `restore` are over."""
        self.length = length
        self._state = state
        self._spare = spare

    def take(self, layer: int) -> None:
        """Copy a DeltaNet layer; of other layers there is nothing to copy."""
        if layer in self._spare:
            copy, current = self._spare[layer], self._state.delta(layer)
            np.copyto(copy.conv, current.conv)
            np.copyto(copy.recurrent, current.recurrent)

    def restore(self) -> None:
        """Put the state back, every layer of which was taken; the sequence's length is the caller's."""
        for layer, copy in self._spare.items():
            self._spare[layer] = self._state.delta(layer)
            self._state.layers[layer] = copy
