"""What stands in the place of an expert store in a model without routed experts."""

import numpy as np
from numpy.typing import NDArray

from edge.experts.store import GuessRecorder, Recorder, StoreStats


class NoExperts:
    """Holds nothing, reads nothing."""

    num_slots = 0
    num_resident = 0
    recorder: Recorder | None = None  # nothing to record
    guess_recorder: GuessRecorder | None = None

    @property
    def memory(self) -> NDArray[np.uint8]:
        """No slots."""
        return np.empty((0, 0), np.uint8)

    def stats(self) -> StoreStats:
        """All zero."""
        return StoreStats(0, 0, 0, 0.0)

    def new_pass(self) -> None:
        """Nothing is timed."""

    def close(self) -> None:
        """Nothing to end."""
