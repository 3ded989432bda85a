"""Guesses of many tokens are one list, the surest expert first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.layers.moe import surest_first


@pytest.mark.parametrize(
    ("chosen", "shares", "order"),
    [
        ([[2, 5, 7]], [[0.2, 0.7, 0.1]], [5, 2, 7]),
        ([[2, 5], [5, 9]], [[0.6, 0.4], [0.3, 0.7]], [9, 2, 5]),  # an expert counts with its best share
        ([[3, 4]], [[0.5, 0.5]], [3, 4]),  # and of equals the first comes first
    ],
)
def test_the_greatest_share_is_the_surest(chosen: list[list[int]], shares: list[list[float]], order: list[int]) -> None:
    assert surest_first(np.array(chosen, np.int32), np.array(shares, np.float32)) == order


@given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 2**32))
def test_every_chosen_expert_is_guessed_once(num_tokens: int, top_k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = np.stack([np.sort(rng.choice(12, top_k, replace=False)) for _ in range(num_tokens)]).astype(np.int32)
    guess = surest_first(chosen, rng.random((num_tokens, top_k), dtype=np.float32))
    assert sorted(guess) == sorted(set(chosen.ravel().tolist()))
