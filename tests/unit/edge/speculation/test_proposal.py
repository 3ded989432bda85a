"""Guesses and what is taken back of them: a state is then what it would be if only the right ones had been computed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edge.batch import Batch, Segment
from edge.errors import StorageError
from edge.layers.deltanet import up_to_captures
from edge.speculation.proposal import Proposal
from edge.state import DeltaState, SequenceState
from tests.unit.edge.checkpoint.samples import TINY

LENGTH = 5


def state_with(num_spares: int) -> SequenceState:
    state = SequenceState(TINY, 40, num_spares)
    state.length = LENGTH
    return state


def deltas(state: SequenceState) -> list[DeltaState]:
    return [layer for layer in state.layers if isinstance(layer, DeltaState)]


def compute(state: SequenceState, proposal: Proposal) -> None:
    """As a pass does: after token number n every state holds n, and savepoints are taken in their moment."""
    for length in range(LENGTH + 1, LENGTH + 2 + len(proposal.tokens)):
        for layer in deltas(state):
            layer.conv[...] = layer.recurrent[...] = length
        for savepoint in proposal.savepoints:
            if savepoint.length == length:
                for index in range(len(state.layers)):
                    savepoint.take(index)
    state.length += 1


@pytest.mark.parametrize("true_tokens", [[9], [7, 9], [7, 8, 9], [7, 8, 6, 9]])
def test_the_state_is_that_after_the_last_right_token(true_tokens: Sequence[int]) -> None:
    state = state_with(3)
    proposal = Proposal(state, [7, 8, 6])
    compute(state, proposal)
    for token in true_tokens:
        if not proposal.accepts(token):
            break
    proposal.settle()
    assert proposal.num_accepted == len(true_tokens) - 1
    assert state.length == LENGTH + len(true_tokens)
    for layer in deltas(state):
        assert (layer.conv == state.length).all()
        assert (layer.recurrent == state.length).all()


def test_a_state_serves_many_proposals() -> None:
    state = state_with(2)
    arrays = {id(layer.recurrent) for layer in (*deltas(state), *(d for spare in state.spares for d in spare.values()))}
    for right in (0, 1, 2, 0, 0, 2):
        state.length = LENGTH
        proposal = Proposal(state, [7, 8])
        compute(state, proposal)
        for token in (7, 8)[:right]:
            assert proposal.accepts(token)
        proposal.settle()
        assert all((layer.recurrent == LENGTH + 1 + right).all() for layer in deltas(state))
    found = {id(layer.recurrent) for layer in (*deltas(state), *(d for spare in state.spares for d in spare.values()))}
    assert found == arrays  # swapped, none lost, none twice


def test_nothing_is_accepted_after_the_last_guess() -> None:
    state = state_with(1)
    proposal = Proposal(state, [7])
    compute(state, proposal)
    assert proposal.accepts(7)
    assert not proposal.accepts(7)
    assert state.length == LENGTH + 2


def test_more_guesses_than_can_be_taken_back_are_refused() -> None:
    with pytest.raises(ValueError, match="2 guesses, but room to take back 1"):
        Proposal(state_with(1), [7, 8])


def batch_of(*segments: Segment) -> Batch:
    num_rows = sum(len(segment.ids) for segment in segments)
    return Batch(TINY, segments, np.arange(num_rows, dtype=np.float32)[:, None].repeat(TINY.hidden_size, 1))


def guessing(num_guesses: int) -> Segment:
    state = state_with(num_guesses)
    proposal = Proposal(state, range(num_guesses))
    return Segment([1, *proposal.tokens], state, proposal.savepoints, num_guesses)


def test_a_pass_over_guesses_is_no_prompt() -> None:
    prompt = Segment([1, 2], state_with(0))
    assert not batch_of(guessing(3), guessing(0)).has_prompt
    assert batch_of(guessing(3), prompt).has_prompt


def test_each_guess_ends_a_piece_so_that_the_state_before_it_is_kept() -> None:
    (block,) = batch_of(guessing(2), guessing(0), guessing(1)).blocks
    assert [(piece.start, piece.rows.stop - piece.rows.start) for piece in block.pieces] == [
        (5, 1), (6, 1), (7, 1), (5, 1), (5, 1), (6, 1),
    ]  # fmt: skip
    runs = [[piece.rows.start for piece in run] for run in up_to_captures(block.pieces)]
    assert runs == [[0], [1], [2, 3, 4], [5]]


def test_a_pass_counts_no_guess() -> None:
    segment = guessing(3)
    batch_of(segment).finish()
    assert segment.state.length == LENGTH + 1


def test_the_rows_to_draw_from_are_the_last_known_one_and_the_guesses() -> None:
    batch = batch_of(Segment([1, 2, 3], state_with(0)), guessing(2))
    assert batch.last_rows(0)[:, 0].tolist() == [2]
    assert batch.last_rows(1)[:, 0].tolist() == [3, 4, 5]


@pytest.mark.parametrize(("row", "left"), [(0, None), (1, 1), (2, 2), (3, 3)])
def test_a_fault_that_only_a_guess_meets_costs_only_the_guesses(row: int, left: int | None) -> None:
    batch = batch_of(guessing(3), guessing(1))
    batch.fail({row: StorageError("broken"), 5: StorageError("broken")})
    assert list(batch.errors) == ([0] if left is None else [])
    assert batch.kept == ([1] if left is None else [0, 1])
    if left is not None:
        assert batch.last_rows(0)[:, 0].tolist() == [*range(left)]
    assert batch.last_rows(1)[:, 0].tolist() == [4]
    assert len(batch.ids) == len(batch.x) == (left or 0) + 1
    assert sum(block.rows.stop - block.rows.start for block in batch.blocks) == len(batch.x)


def test_a_family_without_deltanet_takes_nothing_back() -> None:
    full = replace(TINY, layer_types=("full_attention",) * 3)
    state = SequenceState(full, 40, 2)
    proposal = Proposal(state, [7, 8])
    for savepoint in proposal.savepoints:
        savepoint.take(0)
    proposal.settle()
    assert state.spares == ({}, {})
