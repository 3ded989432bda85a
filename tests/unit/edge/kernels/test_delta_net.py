"""What lies between the projections of a Gated DeltaNet layer: its four steps, to the bit, for any cut into calls."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edge import kernels
from tests.unit.edge.kernels.random_arrays import Random

pytestmark = pytest.mark.usefixtures("variant")

Floats = NDArray[np.float32]
KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, WIDTH = 2, 6, 24, 70, 4
KEY_WIDTH, VALUE_WIDTH = KEY_HEADS * KEY_DIM, VALUE_HEADS * VALUE_DIM
CHANNELS = 2 * KEY_WIDTH + VALUE_WIDTH


class Layer:
    """Random weights, by both ways of computing."""

    def __init__(self, random: Random) -> None:
        self.conv, self.norm = random.floats(WIDTH, CHANNELS), random.floats(VALUE_DIM)
        self.bias, self.rate = random.floats(VALUE_HEADS), -abs(random.floats(VALUE_HEADS))
        self.net = kernels.DeltaNet(
            self.conv, self.bias, self.rate, self.norm, 1e-6, key_heads=KEY_HEADS, key_dim=KEY_DIM
        )

    def by_steps(self, inputs: Sequence[Floats], conv: Floats, recurrent: Floats) -> Floats:
        """One sequence, whose states move on."""
        qkv, z, b, a = inputs
        mixed = kernels.causal_conv(qkv, self.conv, conv)
        q, k, v = np.split(mixed, [KEY_WIDTH, 2 * KEY_WIDTH], axis=1)
        q, k = (np.ascontiguousarray(part).reshape(len(qkv), KEY_HEADS, KEY_DIM) for part in (q, k))
        v = np.ascontiguousarray(v).reshape(len(qkv), VALUE_HEADS, VALUE_DIM)
        y = kernels.gated_delta(q, k, v, *kernels.delta_gates(a, b, self.bias, self.rate), recurrent)
        normal = kernels.gated_rms_norm(y.reshape(-1, VALUE_DIM), z.reshape(-1, VALUE_DIM), self.norm, 1e-6)
        return normal.reshape(z.shape)


def projections(random: Random, tokens: int) -> tuple[Floats, Floats, Floats, Floats]:
    widths = CHANNELS, VALUE_WIDTH, VALUE_HEADS, VALUE_HEADS
    qkv, z, b, a = (random.floats(tokens, width) for width in widths)
    return qkv, z, b, a


def state(random: Random) -> tuple[Floats, Floats]:
    return random.floats(WIDTH - 1, CHANNELS), random.floats(VALUE_HEADS, KEY_DIM, VALUE_DIM)


@pytest.mark.parametrize("counts", [[1], [29], [1, 1, 1], [0, 2], [3, 1, 0, 5]], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
def test_sequences_side_by_side_are_each_alone_step_by_step(counts: list[int], threads: int, random: Random) -> None:
    layer, inputs = Layer(random), projections(random, sum(counts))
    states = [state(random) for _ in counts]
    alone = [(conv.copy(), recurrent.copy()) for conv, recurrent in states]
    ends = np.cumsum(counts)
    expected = [
        layer.by_steps([part[end - count : end] for part in inputs], *own)
        for count, end, own in zip(counts, ends, alone, strict=True)
    ]
    kernels.set_num_threads(threads)
    found = layer.net(*inputs, [(count, *own) for count, own in zip(counts, states, strict=True)])
    np.testing.assert_array_equal(found.view(np.uint32), np.concatenate(expected).view(np.uint32))
    for own, other in zip(states, alone, strict=True):
        np.testing.assert_array_equal(own[0], other[0])
        np.testing.assert_array_equal(own[1], other[1])


def test_a_sequence_may_be_cut_anywhere(random: Random) -> None:
    layer, (qkv, z, b, a) = Layer(random), projections(random, 9)
    conv, recurrent = state(random)
    whole_states = conv.copy(), recurrent.copy()
    whole = layer.net(qkv, z, b, a, [(9, *whole_states)])
    cuts = [slice(0, 1), slice(1, 2), slice(2, 9)]
    parts = [layer.net(qkv[t], z[t], b[t], a[t], [(t.stop - t.start, conv, recurrent)]) for t in cuts]
    np.testing.assert_array_equal(np.concatenate(parts).view(np.uint32), whole.view(np.uint32))
    np.testing.assert_array_equal(recurrent, whole_states[1])


def test_no_tokens_leave_the_state_alone(random: Random) -> None:
    layer, (conv, recurrent) = Layer(random), state(random)
    before = conv.copy(), recurrent.copy()
    assert layer.net(*projections(random, 0), [(0, conv, recurrent)]).shape == (0, VALUE_WIDTH)
    assert layer.net(*projections(random, 0), []).shape == (0, VALUE_WIDTH)
    np.testing.assert_array_equal(conv, before[0])
    np.testing.assert_array_equal(recurrent, before[1])


def test_inputs_that_do_not_fit_are_refused_and_no_state_moves(random: Random) -> None:
    layer, (qkv, z, b, a), (conv, recurrent) = Layer(random), projections(random, 2), state(random)
    other, before = state(random), recurrent.copy()
    own = (2, conv, recurrent)
    refused: list[tuple[list[Any], str]] = [
        ([qkv[:, :-1].copy(), z, b, a, [own]], f"qkv has {CHANNELS - 1} in dimension 1, expected {CHANNELS}"),
        ([qkv, z[:1], b, a, [own]], "z has 1 in dimension 0, expected 2"),
        ([qkv, z, b[:, 1:].copy(), a, [own]], "b has 5 in dimension 1, expected 6"),
        ([qkv, z, b, a[:1], [own]], "a has 1 in dimension 0, expected 2"),
        ([qkv, z, b, a, [(1, conv, recurrent)]], "fewer tokens than qkv"),
        ([qkv, z, b, a, [own, (1, *other)]], "more tokens than qkv"),
        ([qkv, z, b, a, [(2, conv[1:], recurrent)]], "conv has 2 in dimension 0, expected 3"),
        ([qkv, z, b, a, [(2, conv, recurrent[1:])]], "recurrent has 5 in dimension 0, expected 6"),
        ([qkv, z, b, a, [(1, conv, recurrent), (1, conv, other[1])]], "two states overlap"),
        ([qkv, z, b, a, [(1, conv, recurrent), (1, other[0], recurrent)]], "two states overlap"),
    ]
    for arguments, message in refused:
        with pytest.raises(ValueError, match=message):
            layer.net(*arguments)
    with pytest.raises(TypeError):
        layer.net(qkv, z, b, a, [(-2, conv, recurrent)])
    with pytest.raises(TypeError):
        layer.net(qkv, z, b, a, [(2, conv, recurrent.transpose(0, 2, 1))])
    np.testing.assert_array_equal(recurrent, before)


def test_weights_that_do_not_fit_are_refused(random: Random) -> None:
    conv, heads, norm = random.floats(WIDTH, CHANNELS), random.floats(VALUE_HEADS), random.floats(VALUE_DIM)
    for arguments, message in [
        ((conv[:, 1:].copy(), heads, heads, norm), f"conv has {CHANNELS - 1} in dimension 1, expected {CHANNELS}"),
        ((random.floats(17, CHANNELS), heads, heads, norm), "conv has width 17"),
        ((conv, heads, heads[1:], norm), "rate has 5 in dimension 0, expected 6"),
        ((conv, heads[1:], heads[1:], norm), "bias must have a multiple of key_heads"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.DeltaNet(*arguments, 1e-6, key_heads=KEY_HEADS, key_dim=KEY_DIM)
