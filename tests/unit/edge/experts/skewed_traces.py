"""Traces with the skew that was measured on the real 397B model, and a drift as when the text changes its subject."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edge.experts.trace import Access

# Share of a layer's activations that its N hottest experts of 512 cover (150 tokens of text).
COVERAGE = {0: 0.0, 16: 0.33, 32: 0.49, 48: 0.59, 64: 0.67, 96: 0.78, 128: 0.85, 512: 1.0}


def popularity(num_experts: int) -> NDArray[np.float64]:
    """Share of each rank, falling, such that the hottest N/512 of the experts cover what COVERAGE says."""
    marks = np.array(list(COVERAGE)) * num_experts / 512
    covered = np.interp(np.arange(num_experts + 1), marks, list(COVERAGE.values()))
    return np.diff(covered)


def skewed_trace(
    num_steps: int,
    *,
    num_layers: int = 4,
    num_experts: int = 512,
    top_k: int = 10,
    swaps_per_step: float = 1.0,
    prompt_every: int = 0,
    seed: int = 0,
) -> Iterator[Access]:
    """Decoding passes; in each layer `swaps_per_step` pairs of experts exchange their popularity per pass.

    Every `prompt_every` passes (0: never) a prompt passes through all experts first.
    """
    rng = np.random.default_rng(seed)
    shares = np.log(popularity(num_experts))
    ranks = [rng.permutation(num_experts) for _ in range(num_layers)]  # [layer][rank] = expert
    step = 0
    for number in range(num_steps):
        if prompt_every and number % prompt_every == 0:
            yield from (Access(step, layer, tuple(range(num_experts)), True) for layer in range(num_layers))
            step += 1
        for layer, order in enumerate(ranks):
            for _ in range(rng.poisson(swaps_per_step)):
                a, b = rng.integers(num_experts, size=2)
                order[a], order[b] = order[b], order[a]
            chosen = np.argpartition(-(shares + rng.gumbel(size=num_experts)), top_k)[:top_k]  # without replacement
            yield Access(step, layer, tuple(sorted(order[chosen].tolist())), False)
        step += 1
