"""The sums over tokens against their definitions, and what logits that are no numbers come to."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.errors import PackError
from edge.evaluation.scoring import aligned, compare, log_probabilities


def logits(seed: int, rows: int = 5, vocabulary: int = 7, scale: float = 3) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((rows, vocabulary))).astype(np.float32)


def softmax(row: NDArray[np.float32]) -> list[float]:
    exponents = [math.exp(float(value)) for value in row]
    return [value / sum(exponents) for value in exponents]


def test_the_sums_are_those_of_their_definitions() -> None:
    ours, theirs, tokens = logits(1), logits(2), np.array([3, 0, 6, 6, 2])
    nll, kl, same = compare(ours, theirs, tokens)
    q, p = [softmax(row) for row in ours], [softmax(row) for row in theirs]
    assert nll == pytest.approx(-sum(math.log(row[token]) for row, token in zip(q, tokens, strict=True)))
    pairs = [pair for rows in zip(p, q, strict=True) for pair in zip(*rows, strict=True)]
    assert kl == pytest.approx(sum(a * math.log(a / b) for a, b in pairs))
    assert same == sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(p, q, strict=True))


def test_a_model_is_at_no_distance_from_itself() -> None:
    ours = logits(1)
    assert compare(ours, ours.copy(), np.zeros(5, int))[1:] == (0.0, 5)


def test_without_a_reference_only_the_model_counts() -> None:
    ours, tokens = logits(1), np.array([3, 0, 6, 6, 2])
    assert compare(ours, None, tokens) == (compare(ours, logits(2), tokens)[0], 0.0, 0)


def test_far_logits_neither_overflow_nor_vanish() -> None:
    ours = np.array([[1e4, -1e4, 0]], np.float32)
    nll, kl, same = compare(ours, -ours, np.array([1]))
    assert (nll, kl, same) == (2e4, 2e4, 0)


def test_the_lowest_of_equal_tokens_is_the_likeliest() -> None:
    ours, theirs = np.array([[2, 5, 5]], np.float32), np.array([[0, 1, 0]], np.float32)
    assert compare(ours, theirs, np.array([0]))[2] == 1


@pytest.mark.parametrize(("ours", "theirs"), [([5], [5]), ([2, 3], [5]), ([1] * 5, [2, 2, 1]), ([4, 1], [1, 4])])
def test_streams_cut_in_different_places_are_paired_row_by_row(ours: list[int], theirs: list[int]) -> None:
    rows = logits(1)
    pairs = [*aligned(*(iter(np.split(rows, np.cumsum(sizes)[:-1])) for sizes in (ours, theirs)))]
    for side in zip(*pairs, strict=True):
        np.testing.assert_array_equal(np.concatenate(side), rows)
    assert all(len(one) == len(other) > 0 for one, other in pairs)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    ours = logits(1)
    ours[2, 3] = value
    with pytest.raises(PackError, match="the logits are not finite"):
        log_probabilities(ours)
