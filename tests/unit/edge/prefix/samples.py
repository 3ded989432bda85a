"""States of a tiny model with unequal dimensions, and snapshots of them."""

import numpy as np

from edge.prefix.snapshot import Snapshot, copied
from edge.state import SequenceState
from tests.unit.edge.checkpoint.samples import TINY

CAPACITY = 2100


def random_state(length: int, seed: int = 0, capacity: int = CAPACITY) -> SequenceState:
    """A state as after `length` tokens, filled with noise, rows past the length too."""
    rng = np.random.default_rng(seed)
    state = SequenceState(TINY, capacity)
    for arrays in state.contents(capacity):
        for array in arrays:
            array[...] = rng.standard_normal(array.shape, np.float32)
    state.length = length
    return state


def random_snapshot(length: int, seed: int = 0) -> Snapshot:
    """A copy of such a state."""
    return copied(random_state(length, seed))


def contents(state: SequenceState) -> list[bytes]:
    """What counts of a state, as bytes."""
    return [array.tobytes() for arrays in state.contents(state.length) for array in arrays]
