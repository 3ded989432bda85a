"""A snapshot holds what a state held, exactly, in exactly the memory that is counted for it."""

import numpy as np
import pytest

from edge.prefix.snapshot import PAGE_BYTES, Capture, copied, snapshot_bytes, snapshot_pages
from edge.state import DeltaState, SequenceState, delta_bytes, kv_token_bytes
from tests.unit.edge.checkpoint.samples import TINY
from tests.unit.edge.prefix.samples import contents, random_snapshot, random_state


@pytest.mark.parametrize("length", [1, 2, 37, 2100])
def test_a_restored_state_is_the_copied_one_to_the_byte(length: int) -> None:
    state = random_state(length)
    snapshot, expected = copied(state), contents(state)
    other = random_state(5, seed=1)
    snapshot.restore(other)
    assert other.length == length
    assert contents(other) == expected


def test_a_snapshot_does_not_follow_its_state() -> None:
    state = random_state(20)
    snapshot, expected = copied(state), contents(state)
    for arrays in state.contents(20):
        for array in arrays:
            array[...] = 7
    snapshot.restore(state)
    assert contents(state) == expected


def test_a_snapshot_fits_a_state_of_another_capacity() -> None:
    small, large = random_state(30, capacity=31), SequenceState(TINY, 999)
    copied(small).restore(large)
    assert contents(large) == contents(small)


@pytest.mark.parametrize("length", [1, 100, 2100])
def test_its_memory_is_what_is_counted_for_it(length: int) -> None:
    snapshot = random_snapshot(length)
    exact = delta_bytes(TINY) + length * kv_token_bytes(TINY)
    assert exact <= snapshot.nbytes < exact + PAGE_BYTES
    assert snapshot.nbytes == len(snapshot.data) == snapshot_bytes(TINY, length)
    assert snapshot.data.ctypes.data % PAGE_BYTES == 0


def test_a_capture_takes_each_layer_in_its_moment() -> None:
    state = random_state(10)
    capture = Capture(state, 12)
    moments = random_state(12, seed=3)
    for index, (layer, moment) in enumerate(zip(state.layers, moments.layers, strict=True)):
        for array, at_12 in zip(state.contents(12)[index], moments.contents(12)[index], strict=True):
            array[...] = at_12
        if isinstance(layer, DeltaState) and isinstance(moment, DeltaState):
            capture.take(index)
            layer.conv[...] = layer.recurrent[...] = 0  # as later tokens move it on
    state.length = 15
    snapshot = capture.finish()
    assert capture.nbytes == snapshot.nbytes
    other = SequenceState(TINY, 20)
    snapshot.restore(other)
    assert contents(other) == contents(moments)


def test_pages_are_zero_and_whole() -> None:
    pages = snapshot_pages(PAGE_BYTES + 1)
    assert len(pages) == 2 * PAGE_BYTES
    assert not np.any(pages)
