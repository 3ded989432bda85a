"""How often each expert of a layer is chosen, and the offsets on router logits that make it so."""

import numpy as np
from numpy.random import PCG64, Generator
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Share of a layer's activations that the hottest share s of its experts covers: 1 - (1 - s^A)^B. Fitted to 150 tokens
# of text through the 397B: 16 of 512 experts cover 33%, 32 49%, 48 59%, 64 67%, 96 78%, 128 85%; all within 0.6 points.
COVERAGE_A = 0.65
COVERAGE_B = 3.675
# An expert that is chosen for every token is no longer chosen: its offset would grow without end.
MOST_FREQUENT = 0.98
# Of the mean frequency: the curve's end is so flat that its coldest experts would never be chosen.
LEAST_FREQUENT = 0.05
SAMPLES = 2048
ROUNDS = 40
STEP = 0.35  # of the error in log-odds; half of it swings around the answer


def coverage(share: Array | float) -> Array:
    """Of activations, by the hottest `share` of the experts."""
    return 1 - (1 - np.asarray(share, np.float64) ** COVERAGE_A) ** COVERAGE_B


def frequencies(num_experts: int, top_k: int) -> Array:
    """How often each expert is chosen per token, hottest first: [E], of sum top_k.

    What the curve asks of an expert above MOST_FREQUENT, as it does where experts are few, goes to the next ones.
    """
    shares = np.maximum(np.diff(coverage(np.linspace(0, 1, num_experts + 1))), LEAST_FREQUENT / num_experts)
    wanted: Array = top_k * shares / shares.sum()
    most = max(MOST_FREQUENT, top_k / num_experts)
    for first in range(num_experts):
        excess = wanted[first] - most
        if excess <= 0:
            break
        wanted[first] = most
        wanted[first + 1 :] += excess * wanted[first + 1 :] / wanted[first + 1 :].sum()
    return wanted


def offsets(wanted: Array, top_k: int, seed: int) -> Array:
    """What to add to independent standard normal logits so that the top_k choose expert e `wanted[e]` times per token.

    Found by simulation: the log-odds of what was wrong is added to each, on the same samples every round. Mean 0.
    """
    noise = _noise(seed, len(wanted))
    found = np.zeros(len(wanted))
    for _ in range(ROUNDS):
        actual = choices(noise + found, top_k).mean(axis=0)
        # Half a choice more than none: an expert that these samples never choose has not the frequency 0.
        actual = (actual * SAMPLES + 0.5) / (SAMPLES + 1)
        found += STEP * (_log_odds(wanted) - _log_odds(actual))
    centred: Array = found - found.mean()
    return centred


def mean_square_share(added: Array, top_k: int, seed: int) -> float:
    """Of the softmax shares of a token's experts, the sum of their squares: how little their outputs average out."""
    logits = -np.sort(-(_noise(seed, len(added)) + added), axis=1)[:, :top_k]
    shares = np.exp(logits - logits[:, :1])
    shares /= shares.sum(axis=1, keepdims=True)
    return float((shares**2).sum(axis=1).mean())


def choices(logits: Array, top_k: int) -> NDArray[np.bool_]:
    """Which experts each row chooses: [T, E]."""
    chosen = np.zeros(logits.shape, np.bool_)
    np.put_along_axis(chosen, np.argpartition(-logits, top_k - 1, axis=1)[:, :top_k], values=True, axis=1)
    return chosen


def _noise(seed: int, num_experts: int) -> Array:
    return Generator(PCG64(seed)).standard_normal((SAMPLES, num_experts))


def _log_odds(frequency: Array) -> Array:
    clipped = np.clip(frequency, 1e-9, 1 - 1e-9)
    return np.log(clipped / (1 - clipped))
