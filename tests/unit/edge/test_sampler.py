"""The sampler: bad parameters, determinism, and the kept set and distribution against transformers' own filters."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from edge.errors import RequestError
from edge.sampler import Sampler, SamplingParams, candidates


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", 2.5),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", -1),
        ("min_p", 1.0),
        ("min_p", -0.5),
        ("seed", -1),
        ("seed", 2**64),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(RequestError, match=f"{name} is {value}: it must be"):
        SamplingParams(**{name: value})  # type: ignore[arg-type]  # the wrong types are the point


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    assert Sampler(SamplingParams()).draw(np.array([0, 3, 1, 3], np.float32)) == 1


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-45])
def test_the_smallest_temperatures_are_greedy(temperature: float) -> None:
    logits = np.array([-np.inf, 3e4, -3e4, 3e4, 2.9e4], np.float32)
    tokens, probabilities = candidates(logits, SamplingParams(temperature=temperature, top_p=0.9))
    assert (tokens.tolist(), probabilities.tolist()) == ([1, 3], [0.5, 0.5])


def test_the_same_seed_draws_the_same_tokens_and_another_does_not() -> None:
    logits = np.random.default_rng(5).normal(size=100).astype(np.float32)

    def draw(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sampler.draw(logits) for _ in range(20)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def reference_probabilities(logits: NDArray[np.float32], params: SamplingParams) -> NDArray[np.float64]:
    """What transformers leaves of `logits` after its own filters in its own order, float64."""
    ids = torch.LongTensor([[]])
    scores = TemperatureLogitsWarper(params.temperature)(ids, torch.from_numpy(logits.astype(np.float64))[None])
    if params.top_k:
        scores = TopKLogitsWarper(params.top_k)(ids, scores)
    if params.top_p < 1:
        scores = TopPLogitsWarper(params.top_p)(ids, scores)
    if params.min_p:
        scores = MinPLogitsWarper(params.min_p)(ids, scores)
    return np.asarray(torch.softmax(scores[0], dim=-1).numpy())


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32),
    vocab=st.sampled_from([2, 17, 400, 3000]),
    temperature=st.sampled_from([0.05, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 50, 4000]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.02, 0.3]),
)
def test_the_kept_tokens_and_their_probabilities_are_those_of_transformers(
    seed: int, vocab: int, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    logits = np.random.default_rng(seed).normal(scale=2, size=vocab).astype(np.float32)
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    tokens, probabilities = candidates(logits, params)
    found = np.zeros(vocab)
    found[tokens] = probabilities
    expected = reference_probabilities(logits, params)
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_tokens_that_tie_with_the_last_of_the_top_k_are_kept_as_transformers_keeps_them() -> None:
    logits = np.array([1, 2, 2, 2, 0], np.float32)
    params = SamplingParams(temperature=1.0, top_k=2)
    tokens, _ = candidates(logits, params)
    assert tokens.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(np.flatnonzero(reference_probabilities(logits, params)), [1, 2, 3])


def test_drawn_tokens_follow_the_distribution() -> None:
    logits = np.array([2.0, 1.0, 0.0, -1.0, -8.0], np.float32)
    params = SamplingParams(temperature=1.3, top_k=4, seed=11)
    sampler, draws = Sampler(params), 20_000
    counts = np.bincount([sampler.draw(logits) for _ in range(draws)], minlength=5)
    expected = reference_probabilities(logits, params) * draws
    assert counts[4] == 0
    chi_square = float(((counts[:4] - expected[:4]) ** 2 / expected[:4]).sum())
    assert chi_square < 16.27  # 3 degrees of freedom, p = 0.001
