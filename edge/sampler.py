"""How the next token is drawn from the logits of one position.

The filters and their order are those of transformers: temperature, top-k, top-p, min-p, each over what the one before
it kept.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.errors import RequestError

MAX_TEMPERATURE = 2.0
MAX_SEED = 2**64 - 1
NUCLEUS_GUESSES = (1024, 16384)


class Draw(Protocol):
    """Chooses the tokens of one completion."""

    def draw(self, logits: NDArray[np.float32]) -> int:
        """The next token for `logits` f32[vocab]."""


class Sampling(Protocol):
    """How a request wants its tokens chosen, and how many."""

    @property
    def max_tokens(self) -> int:
        """The most that the completion may have."""

    def sampler(self) -> Draw:
        """A new one for a new completion."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What a request asks of the sampler; temperature 0 is greedy. Raises RequestError on a value out of range."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _require(_is_int(self.max_tokens) and self.max_tokens >= 1, "max_tokens", self.max_tokens, "at least 1")
        _require(_is_within(self.temperature, 0, MAX_TEMPERATURE), "temperature", self.temperature, "0 to 2")
        _require(_is_within(self.top_p, 0, 1) and self.top_p > 0, "top_p", self.top_p, "above 0, at most 1")
        _require(_is_int(self.top_k) and self.top_k >= 0, "top_k", self.top_k, "0 (no limit) or more")
        _require(_is_within(self.min_p, 0, 1) and self.min_p < 1, "min_p", self.min_p, "at least 0, below 1")
        if self.seed is not None:
            _require(_is_int(self.seed) and 0 <= self.seed <= MAX_SEED, "seed", self.seed, "0 to 2**64-1")

    def sampler(self) -> "Sampler":
        """Draws as asked."""
        return Sampler(self)


class Sampler:
    """Draws tokens for one request. Equal logits and an equal seed give equal tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._rng = np.random.default_rng(params.seed)

    def draw(self, logits: NDArray[np.float32]) -> int:
        """The next token for `logits` f32[vocab]. Greedy takes the lowest id among equals."""
        if self._params.temperature == 0:
            return int(np.argmax(logits))
        tokens, probabilities = candidates(logits, self._params)
        cumulative = np.cumsum(probabilities)
        # Against the last sum and not 1: rounding must never point past the last candidate.
        drawn = np.searchsorted(cumulative, self._rng.random() * cumulative[-1], side="right")
        return int(tokens[min(int(drawn), len(tokens) - 1)])


def candidates(logits: NDArray[np.float32], params: SamplingParams) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens that the filters keep, in an order fixed by the logits alone, and their probabilities."""
    tokens = _largest(logits, params.top_k) if params.top_k else np.arange(len(logits))
    probabilities = _softmax(logits[tokens].astype(np.float64), params.temperature)
    # min-p compares with the likeliest, so what the nucleus cuts off does not matter to it.
    least = params.min_p * probabilities.max()
    if params.top_p < 1:
        nucleus = _nucleus(probabilities, params.top_p)
        tokens, probabilities = tokens[nucleus], probabilities[nucleus]
    if params.min_p > 0:
        likely = probabilities >= least
        tokens, probabilities = tokens[likely], probabilities[likely]
    return tokens, probabilities / probabilities.sum()


def _largest(values: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Where the `count` largest are, largest first, lowest index first among equals.

    Those that tie with the last one are kept too: transformers' top-k does so.
    """
    kept = np.arange(len(values))
    if count < len(values):
        kept = np.flatnonzero(values >= np.partition(values, -count)[-count])
    order: NDArray[np.int64] = kept[np.argsort(-values[kept], kind="stable")]
    return order


def _nucleus(probabilities: NDArray[np.float64], top_p: float) -> NDArray[np.int64]:
    """The fewest largest `probabilities` that reach top_p together; at least one."""
    # Sorting a vocabulary of 248,320 takes 20 ms, for each of many sequences; the nucleus of a trained model lies in
    # the first few hundred, at a high temperature in the first few thousand.
    for count in (*NUCLEUS_GUESSES, len(probabilities)):
        order = _largest(probabilities, count)
        before = np.cumsum(probabilities[order]) - probabilities[order]
        size = int(np.count_nonzero(before < top_p))
        if size < len(order):
            break
    return order[: max(1, size)]


def _softmax(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):  # at the smallest temperatures all but the likeliest are infinitely far away
        exponents = np.exp((logits - logits.max()) / temperature)
    return np.asarray(exponents / exponents.sum())


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_within(value: float, low: float, high: float) -> bool:
    return math.isfinite(value) and low <= value <= high


def _require(is_valid: bool, name: str, value: object, allowed: str) -> None:
    if not is_valid:
        raise RequestError(f"{name} is {value}: it must be {allowed}")
