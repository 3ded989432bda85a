"""The parts of the layers that are plain numpy: rotation, grouping, looking weights up."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.batch import Piece
from edge.checkpoint.layout import Format, MatrixLayout
from edge.checkpoint.matrix import empty_matrix
from edge.checkpoint.random_model import SMALL
from edge.errors import PackError
from edge.layers.deltanet import up_to_captures
from edge.layers.moe import group_by_expert
from edge.layers.weights import Weights
from edge.prefix.snapshot import Capture
from edge.state import SequenceState


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32))
def test_grouping_by_expert_loses_and_invents_nothing(num_tokens: int, top_k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = np.stack([np.sort(rng.choice(9, top_k, replace=False)) for _ in range(num_tokens)]).astype(np.int32)
    shares = rng.random((num_tokens, top_k), dtype=np.float32)
    routing = group_by_expert(chosen, shares)
    assert routing.experts == sorted(set(chosen.ravel().tolist()))
    assert routing.rows.dtype.name == "int32"
    assert routing.shares.dtype.name == "float32"
    found: dict[tuple[int, int], float] = {}
    for expert, (begin, end) in zip(routing.experts, pairwise([0, *routing.ends]), strict=True):
        rows, weights = routing.rows[begin:end], routing.shares[begin:end]
        assert (np.diff(rows) > 0).all()
        found |= {(row, expert): weight for row, weight in zip(rows.tolist(), weights.tolist(), strict=True)}
    expected = {
        (row, int(expert)): float(shares[row, rank])
        for row in range(num_tokens)
        for rank, expert in enumerate(chosen[row])
    }
    assert found == expected


def test_pieces_are_computed_together_up_to_each_copy_of_a_state() -> None:
    """Each is copied when its rows have passed and no later ones of its sequence."""
    state = SequenceState(SMALL, 8)
    copy, copied = Capture(state, 1), [False, True, True, False, False]
    pieces = [Piece(slice(row, row + 1), 0, state, copy if taken else None) for row, taken in enumerate(copied)]
    runs = list(up_to_captures(pieces))
    assert [[piece.rows.start for piece in run] for run in runs] == [[0, 1], [2], [3, 4]]
    assert list(up_to_captures(pieces[:3])) == runs[:2]
    assert list(up_to_captures([])) == []


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(PackError, match=r"layers\.3\.mlp\.gate is missing"):
        Weights({}).under("layers.3").under("mlp").matrix("gate", 2, 3)


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    weights = Weights({"a": empty_matrix(MatrixLayout(Format.F16, 2, 3)), "b": np.zeros(4, np.float32)})
    with pytest.raises(PackError, match=r"tensor a is a F16 matrix \[2, 3\]; the config asks for \[3, 2\]"):
        weights.matrix("a", 3, 2)
    with pytest.raises(PackError, match=r"tensor b is float32 \[4\]; the config asks for f32\[5\]"):
        weights.vector("b", 5)
    with pytest.raises(PackError, match="tensor b is float32"):
        weights.matrix("b", 4, 1)
    with pytest.raises(PackError, match="tensor a is a F16 matrix"):
        weights.vector("a", 2, 3)
