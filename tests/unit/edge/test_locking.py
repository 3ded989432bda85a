"""Locking memory: done where the system allows it, reported where it does not."""

import numpy as np

from edge.locking import lock_in_ram


def test_memory_within_the_limit_is_locked() -> None:
    assert lock_in_ram([np.zeros(5000, np.uint8), np.zeros(3, np.float32)])


def test_memory_that_cannot_be_locked_is_reported() -> None:
    beyond = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), shape=(2**46,))
    assert not lock_in_ram([np.zeros(10, np.uint8), beyond])
